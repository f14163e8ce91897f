"""Virtual time: when each worker computes, at which version it reads, and when its gradient takes effect. No processes.

A schedule depends on the strategy and on the seconds that each step takes, not on any model: `retrain.replay` then
trains with real gradients in exactly that order. The strategies are the objects that `train` takes, so what is
simulated here is what runs there. `Asynchronous()` with `push_s=0` and `pull_s=0` is also Hogwild without lost updates.

The network is a delay: `push_s` from a worker to the shared weights, `pull_s` back. Messages do not queue for each
other. Events at the same moment happen in the order of the worker's index.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parallel_lab.agree.arguments import number, whole
from parallel_lab.model.data import shard_sizes
from parallel_lab.parameter_server import Ledger, Rule, Update
from parallel_lab.plan import COMPUTE, RECV, SEND
from parallel_lab.synchronization.local_sgd import LocalSteps
from parallel_lab.trace import Span, Trace

Strategy = Rule | LocalSteps
StepSeconds = Callable[[int, int], float] | Sequence[float] | float


class Costs(NamedTuple):
    """What things take, in seconds."""

    step_s: Callable[[int, int], float]  # computing a gradient, by worker and its step
    push_s: float  # a message to the shared weights
    pull_s: float  # a message back


@dataclass(frozen=True)
class Schedule(Sequence[Update]):
    """The updates of one training in virtual time, in the order in which they took effect."""

    strategy: Strategy
    workers: int
    updates: tuple[Update, ...]
    costs: Costs

    def __len__(self) -> int:
        return len(self.updates)

    def __getitem__(self, index):
        return self.updates[index]

    @property
    def seconds(self) -> float:
        """When the last gradient took effect."""
        return max((update.finished_s for update in self.updates), default=0.0)

    @property
    def staleness(self) -> list[int]:
        """Of each gradient that was used, in the order of use."""
        return [update.staleness for update in self.updates if not update.dropped]


def schedule(
    strategy: Strategy,
    step_s: StepSeconds,
    workers: int,
    updates: int,
    push_s: float = 0.0,
    pull_s: float = 0.0,
    *,
    count_dropped: bool = True,
) -> Schedule:
    """Lets `workers` workers compute `updates` gradients, all together, and says when each took effect.

    Under a server's rule a worker that becomes free takes the next gradient, so that fast workers compute more of them.
    Without `count_dropped` all go on until `updates` gradients were *used*; what is under way then comes to nothing.
    Under `LocalSteps` each computes an equal number (the first ones one more where it does not divide), and a meeting
    takes `push_s` and `pull_s`. `step_s` is a function (worker, its step), one number per worker, or one for all.
    """
    whole("workers", workers)
    whole("updates", updates)
    costs = Costs(_seconds(step_s, workers), number("push_s", push_s), number("pull_s", pull_s))
    if isinstance(strategy, LocalSteps):
        return Schedule(strategy, workers, tuple(_local(strategy.every, workers, updates, costs)), costs)
    if not isinstance(strategy, Rule):
        raise TypeError(f"strategy={strategy!r}: expected a rule, such as Stale(bound=2), or LocalSteps(every=8)")
    strategy.check(workers, servers=1)
    return Schedule(strategy, workers, tuple(_served(strategy, workers, updates, costs, count_dropped)), costs)


def slow_worker(workers: int, factor: float = 3.0, step_s: float = 1.0) -> list[float]:
    """Seconds of a step for each worker, where the last one takes `factor` times as long: for `schedule`."""
    return [step_s] * (workers - 1) + [step_s * factor]


def _seconds(step_s: StepSeconds, workers: int) -> Callable[[int, int], float]:
    if callable(step_s):
        return lambda worker, step: number(f"step_s({worker}, {step})", step_s(worker, step))
    each = list(step_s) if isinstance(step_s, Sequence) else [step_s] * workers
    if len(each) != workers:
        raise ValueError(f"step_s has {len(each)} numbers for {workers} workers")
    return lambda worker, step: number("step_s", each[worker])


def _local(every: int, workers: int, updates: int, costs: Costs) -> list[Update]:
    """Rounds of up to `every` steps for each worker; a round ends when its slowest worker has met the others."""
    found, now_s, counts = [], 0.0, shard_sizes(updates, workers)
    for version, first in enumerate(range(0, max(counts), every)):
        steps = []
        for worker in range(workers):
            end_s = now_s
            for step in range(first, min(first + every, counts[worker])):
                start_s, end_s = end_s, end_s + costs.step_s(worker, step)
                steps.append(Update(worker, start_s, 0.0, version, version + 1, 0, False, step, end_s))
        now_s = max(step.computed_s for step in steps) + costs.push_s + costs.pull_s
        steps.sort(key=lambda step: (step.computed_s, step.worker))
        found += [step._replace(finished_s=now_s) for step in steps]
    return found


def _served(rule: Rule, workers: int, updates: int, costs: Costs, count_dropped: bool) -> list[Update]:
    """The pushes as they arrive, under the rule that a real server asks; who has no gradient left to compute leaves."""
    left = updates if count_dropped else math.inf
    now_s, waiting = 0.0, list(range(workers))  # the workers that want to read, in the order of asking
    arrivals: list[tuple[float, int, Update]] = []
    ledger = Ledger(rule, workers, lambda: now_s)
    while True:
        while ready := [worker for worker in waiting if rule.may_pull(ledger.state, worker)]:
            for worker in ready:
                waiting.remove(worker)
                if not left:
                    ledger.leave(worker)
                    continue
                left -= 1
                step, started_s = ledger.state.clocks[worker], now_s + costs.pull_s
                computed_s = started_s + costs.step_s(worker, step)
                push = Update(worker, started_s, 0.0, ledger.state.version, 0, 0, False, step, computed_s)
                heapq.heappush(arrivals, (computed_s + costs.push_s, worker, push))
        if not arrivals:
            return ledger.updates
        now_s, worker, push = heapq.heappop(arrivals)
        ledger.take(push)
        if not count_dropped and sum(not update.dropped for update in ledger.updates) >= updates:
            return ledger.updates
        waiting.append(worker)


def trace(timetable: Schedule, message_bytes: int = 0) -> Trace:
    """A schedule as a simulated trace, a row for each worker, for `draw` and `Trace.bubble`.

    Computing is `gradient`, or `dropped` where it came to nothing; `push` and `pull` are its messages, and `meet` the
    meeting of `LocalSteps`. What is left blank is waiting. Each push or meeting sends `message_bytes`.
    """
    push_s, pull_s = timetable.costs.push_s, timetable.costs.pull_s
    last = {(update.worker, update.version): update.step for update in timetable}
    spans: list[Span] = []
    for update in timetable:
        began_s, ended_s = update.started_s, update.computed_s
        rows = [("dropped" if update.dropped else "gradient", began_s, ended_s, COMPUTE)]
        if not isinstance(timetable.strategy, LocalSteps):
            rows += [("pull", began_s - pull_s, began_s, RECV), ("push", ended_s, ended_s + push_s, SEND)]
        elif last[update.worker, update.version] == update.step:
            rows.append(("meet", update.finished_s - push_s - pull_s, update.finished_s, SEND))
        for kind, start_s, end_s, lane in rows:
            span = Span(update.worker, kind, start_s, end_s, update.read_version, update.step, lane=lane)
            sent = {"bytes": message_bytes, "sent_bytes": message_bytes, "sent_messages": 1} if lane == SEND else {}
            spans.append(span._replace(**sent))
    return Trace(timetable.workers, tuple(sorted(spans, key=lambda s: (s.rank, s.start_s))), simulated=True)
