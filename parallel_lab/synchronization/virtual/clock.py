"""Virtual time: when each worker computes, at which version it reads, and when its gradient takes effect. No processes.

A schedule depends on the strategy and on the seconds that each step takes, not on any model: `retrain.replay` then
trains with real gradients in exactly that order. The strategies are the objects that `train` takes, so what is
simulated here is what runs there. `Asynchronous()` with `push_s=0` and `pull_s=0` is also Hogwild without lost updates.

The network is a delay: `push_s` from a worker to the shared weights, `pull_s` back. Messages do not queue for
each other. Events at the same moment happen in the order of the worker's index.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parallel_lab.agree.arguments import number, whole
from parallel_lab.model.data import shard_sizes
from parallel_lab.parameter_server import Ledger, Rule, Update
from parallel_lab.synchronization.local_sgd import LocalSteps

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
) -> Schedule:
    """Lets `workers` workers compute `updates` gradients, all together, and says when each took effect.

    Under a server's rule a worker that becomes free takes the next gradient, so that fast workers compute more of them.
    Under `LocalSteps` each computes an equal number (the first ones one more where it does not divide).

    Args:
        strategy: an object that `train` takes, but `Hogwild()`.
        step_s: seconds of computing a gradient: a function (worker, its step), one number a worker, or one for all.
        workers: how many.
        updates: how many gradients all of them compute.
        push_s: seconds on the way to the shared weights.
        pull_s: seconds back; a meeting of `LocalSteps` takes both.

    Raises:
        TypeError: a count or a time is no number, or the strategy is none.
        ValueError: a count is below 1, or a time is negative.
    """
    whole("workers", workers)
    whole("updates", updates)
    costs = Costs(_seconds(step_s, workers), number("push_s", push_s), number("pull_s", pull_s))
    if isinstance(strategy, LocalSteps):
        return Schedule(strategy, workers, tuple(_local(strategy.every, workers, updates, costs)), costs)
    if not isinstance(strategy, Rule):
        raise TypeError(f"strategy={strategy!r}: expected a rule, such as Stale(bound=2), or LocalSteps(every=8)")
    strategy.check(workers, servers=1)
    return Schedule(strategy, workers, tuple(Events(strategy, workers, updates, costs).run()), costs)


def slow_worker(workers: int, factor: float = 3.0, step_s: float = 1.0) -> list[float]:
    """Seconds of a step for each worker, where the last one takes `factor` times as long: for `schedule`."""
    whole("workers", workers)
    return [number("step_s", step_s)] * (workers - 1) + [step_s * number("factor", factor)]


def _seconds(step_s: StepSeconds, workers: int) -> Callable[[int, int], float]:
    if callable(step_s):
        return lambda worker, step: number(f"step_s({worker}, {step})", step_s(worker, step))
    each = list(step_s) if isinstance(step_s, Sequence) else [step_s] * workers
    if len(each) != workers:
        raise ValueError(f"step_s has {len(each)} numbers for {workers} workers")
    checked = [number("step_s", value) for value in each]
    return lambda worker, step: checked[worker]


def _local(every: int, workers: int, updates: int, costs: Costs) -> list[Update]:
    """Rounds of up to `every` steps for each worker; a round ends when its slowest worker has met the others."""
    left, done, found, now_s, version = shard_sizes(updates, workers), [0] * workers, [], 0.0, 0
    while any(left):
        steps = []
        for worker in range(workers):
            start_s = now_s
            for _ in range(min(every, left[worker])):
                end_s = start_s + costs.step_s(worker, done[worker])
                steps.append(Update(worker, start_s, 0.0, version, version + 1, 0, False, done[worker], end_s))
                done[worker], left[worker], start_s = done[worker] + 1, left[worker] - 1, end_s
        now_s = max(step.computed_s for step in steps) + costs.push_s + costs.pull_s
        steps.sort(key=lambda step: (step.computed_s, step.worker))
        found += [step._replace(finished_s=now_s) for step in steps]
        version += 1
    return found


class Events(Ledger):
    """The queue of pushes under way: `updates` gradients of `workers` workers, under the rule that a real server asks.

    A worker that is done, and has no further gradient to compute, is no longer waited for.
    """

    def __init__(self, rule: Rule, workers: int, updates: int, costs: Costs) -> None:
        super().__init__(rule, workers)
        self.costs, self.left, self.now_s = costs, updates, 0.0
        self.waiting: list[int] = []  # workers that want to read, in the order of asking
        self.arrivals: list[tuple[float, int, Update]] = []

    def run(self) -> list[Update]:
        """The updates, in the order in which they took effect."""
        for worker in range(len(self.state.clocks)):
            self._ask(worker)
        while self.arrivals:
            self.now_s, worker, push = heapq.heappop(self.arrivals)
            self.take(push)
            self._ask(worker)
        return self.updates

    def now(self) -> float:
        """When the last push arrived."""
        return self.now_s

    def _ask(self, worker: int) -> None:
        self.waiting.append(worker)
        while ready := [w for w in self.waiting if self.rule.may_pull(self.state, w)]:
            for one in ready:
                self.waiting.remove(one)
                self._start(one)

    def _start(self, worker: int) -> None:
        """Begins a gradient at the present version; if there is none left, the worker leaves."""
        if not self.left:
            return self.leave(worker)
        self.left -= 1
        step, started_s = self.state.clocks[worker], self.now_s + self.costs.pull_s
        computed_s = started_s + self.costs.step_s(worker, step)
        push = Update(worker, started_s, 0.0, self.state.version, 0, 0, False, step, computed_s)
        heapq.heappush(self.arrivals, (computed_s + self.costs.push_s, worker, push))
