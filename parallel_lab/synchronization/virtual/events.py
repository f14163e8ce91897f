"""The event queue of virtual time: workers and a server that asks the rule what a real one asks.

It mirrors `parameter_server.server.Shard`: a pull waits until the rule's `may_pull`, a push counts in the worker's
clock and is held or dropped (`admits`), and what is held becomes an update as soon as it is `due`. A worker that is
done, and has no further gradient to compute, is no longer waited for.
"""

import heapq
from collections.abc import Callable
from typing import NamedTuple

from parallel_lab.parameter_server import Rule, State
from parallel_lab.synchronization.record import Update


class Costs(NamedTuple):
    """What things take, in seconds."""

    step_s: Callable[[int, int], float]  # computing a gradient, by worker and its step
    push_s: float  # a message to the shared weights
    pull_s: float  # a message back


class Server:
    """Runs `updates` gradients of `workers` workers under `rule`; `run` returns what became of each."""

    def __init__(self, rule: Rule, workers: int, updates: int, costs: Costs) -> None:
        self.rule, self.costs, self.left = rule, costs, updates
        self.state = State.of(range(workers))
        self.steps = [0] * workers  # gradients begun, by worker
        self.waiting: list[int] = []  # workers that want to read, in the order of asking
        self.held: dict[int, Update] = {}
        self.arrivals: list[tuple[float, int, Update]] = []
        self.found: list[Update] = []

    def run(self) -> list[Update]:
        """The updates, in the order in which they took effect."""
        for worker in range(len(self.steps)):
            self._ask(worker, 0.0)
        while self.arrivals:
            now_s, worker, update = heapq.heappop(self.arrivals)
            self._push(worker, update, now_s)
            self._ask(worker, now_s)
        return self.found

    def _ask(self, worker: int, now_s: float) -> None:
        """`worker` asks to read for its next gradient, or is done if all have been given out."""
        self.waiting.append(worker)
        self._settle(now_s)

    def _push(self, worker: int, update: Update, now_s: float) -> None:
        self.state.clocks[worker] += 1
        self.state.read[worker] = update.read_version
        update = update._replace(finished_s=now_s, staleness=self.state.version - update.read_version)
        if self.rule.admits(self.state, update.read_version):
            self.state.held.append(worker)
            self.held[worker] = update
        else:
            self.found.append(update._replace(version=self.state.version, dropped=True))
        self._settle(now_s)

    def _settle(self, now_s: float) -> None:
        """Updates while that is due, and lets those read who may."""
        changed = True
        while changed:
            due = list(self.rule.due(self.state))
            changed = bool(due)
            if due:
                self._update(due, now_s)
            for worker in [w for w in self.waiting if self.rule.may_pull(self.state, w)]:
                self.waiting.remove(worker)
                changed = self._start(worker, now_s) or changed

    def _update(self, workers: list[int], now_s: float) -> None:
        version = self.state.version
        for worker in workers:
            update = self.held.pop(worker)
            staleness = version - update.read_version
            self.found.append(update._replace(finished_s=now_s, version=version + 1, staleness=staleness))
        self.state.updated(workers)

    def _start(self, worker: int, now_s: float) -> bool:
        """Begins a gradient at the present version; True if there was none left and the worker has left instead."""
        if not self.left:
            self.state.live.discard(worker)
            return True
        self.left -= 1
        step = self.steps[worker]
        self.steps[worker] += 1
        started_s = now_s + self.costs.pull_s
        computed_s = started_s + self.costs.step_s(worker, step)
        update = Update(worker, started_s, 0.0, self.state.version, 0, 0, False, step, computed_s)
        heapq.heappush(self.arrivals, (computed_s + self.costs.push_s, worker, update))
        return False
