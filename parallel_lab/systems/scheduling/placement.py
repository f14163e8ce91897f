"""Fragments: on which machine a task goes, and what is left free and of no use to the next one.

A cluster may have many free GPUs and no room. Tasks that take a part of a GPU leave parts, and jobs that need k GPUs of
one machine find k-1 on each. `Pool` is a cluster of machines, and a rule says on which one a task goes:

- `best_fit` takes the place that leaves least free;
- `worst_fit` takes the one that leaves most, so that load is spread;
- `Anywhere` draws one;
- `Gradient` is FGD (Weng et al., "Beware of Fragmentation", ATC 2023). It takes the place by which the expected
  unusable part grows least. Of a task that is drawn from a known mix, the free parts of a machine that it could not
  use are unusable; the expectation is over the mix.

Only GPUs are counted here: no cores, no memory, no models of GPU. FGD was published with all of these, so what it
gains there cannot be expected here.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

WHOLE = 1000  # thousandths of a GPU
State = tuple[int, ...]  # the free thousandths of each GPU of a machine, sorted: alike machines are alike


class Ask(NamedTuple):
    """What a task needs on one machine: so many whole GPUs, or one part, in thousandths."""

    gpus: int
    thousandths: int = WHOLE

    @property
    def total(self) -> int:
        """What it takes in all, in thousandths."""
        return self.gpus * self.thousandths


class Way(NamedTuple):
    """One way to place a task: the machine before and after, and how much was free on the GPU that it shares."""

    before: State
    after: State
    free: int


@cache
def ways(state: State, ask: Ask) -> tuple[Way, ...]:
    """All ways to place a task on such a machine that differ."""
    if ask.thousandths < WHOLE:
        return tuple(Way(state, _less(state, free, ask.thousandths), free) for free in set(state) if free >= ask.total)
    if state.count(WHOLE) < ask.gpus:
        return ()
    return (Way(state, (0,) * ask.gpus + state[: len(state) - ask.gpus], WHOLE),)


def _less(state: State, free: int, taken: int) -> State:
    rest = list(state)
    rest[rest.index(free)] -= taken
    return tuple(sorted(rest))


Score = Callable[[Way, int], float]  # of a way, and of how many places are like it; the way with the least is taken


def best_fit(way: Way, alike: int = 1) -> float:
    """The GPU, and then the machine, that has least free."""
    return 1e6 * way.free + sum(way.before)


def worst_fit(way: Way, alike: int = 1) -> float:
    """The GPU, and then the machine, that has most free."""
    return -best_fit(way)


@dataclass
class Anywhere:
    """Any place with room, drawn; each is as likely as any other."""

    seed: int

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def __call__(self, way: Way, alike: int) -> float:
        """The least of so many drawn times: of ways that race, each wins in proportion to its places."""
        return self.dice.expovariate(alike)


def mix(asks: Iterable[Ask]) -> dict[Ask, float]:
    """The probability of each kind of task."""
    counts = Counter(asks)
    return {ask: count / counts.total() for ask, count in counts.items()}


def wasted(state: State, ask: Ask) -> int:
    """The free thousandths of a machine that a task of this kind could not use."""
    if not ways(state, ask):
        return sum(state)
    return sum(free for free in state if free < min(ask.thousandths, WHOLE))


@dataclass
class Gradient:
    """The way by which the expected unusable part grows least; then the best fit."""

    mix: Mapping[Ask, float]
    known: dict[State, float] = field(default_factory=dict)

    def __call__(self, way: Way, alike: int = 1) -> float:
        """The growth in thousandths, and a little of the best fit, which breaks ties."""
        return self.unusable(way.after) - self.unusable(way.before) + 1e-9 * best_fit(way)

    def unusable(self, state: State) -> float:
        """The expected free thousandths of a machine that the next task could not use."""
        if state not in self.known:
            self.known[state] = sum(part * wasted(state, ask) for ask, part in self.mix.items())
        return self.known[state]


class Pool:
    """Machines of a cluster, those in the same state counted together; tasks come and nobody leaves."""

    def __init__(self, gpus: Iterable[int]) -> None:
        self.machines = Counter((WHOLE,) * count for count in gpus)
        self.capacity = self.free

    @property
    def free(self) -> int:
        """The free thousandths of all GPUs."""
        return sum(sum(state) * count for state, count in self.machines.items())

    def place(self, ask: Ask, score: Score) -> bool:
        """Places a task where the rule says; False where there is no room for it."""
        found = [way for state in self.machines for way in ways(state, ask)]
        if not found:
            return False
        way = min(found, key=lambda way: score(way, self.alike(way, ask)))
        self.machines[way.before] -= 1
        self.machines[way.after] += 1
        if not self.machines[way.before]:
            del self.machines[way.before]
        return True

    def alike(self, way: Way, ask: Ask) -> int:
        """How many places a way stands for: machines, times GPUs where the task shares one."""
        return self.machines[way.before] * (way.before.count(way.free) if ask.thousandths < WHOLE else 1)

    def unusable(self, gradient: Gradient) -> float:
        """The part of the cluster that is free and of no use to the next task, in expectation."""
        return sum(gradient.unusable(state) * count for state, count in self.machines.items()) / self.capacity


class Point(NamedTuple):
    """How full a cluster is when tasks that ask for `asked` of it have come; all are parts of the cluster."""

    asked: float
    held: float
    unusable: float


def filled(gpus: Iterable[int], asks: Sequence[Ask], score: Score, *, every: float = 0.02) -> list[Point]:
    """Lets tasks come one by one; who finds no room is sent away.

    Args:
        gpus: of each machine.
        asks: of the tasks, in their order; the mix is theirs.
        score: the rule.
        every: a point each time that so much more of the cluster was asked for, and one at the end.
    """
    pool, gradient, points, asked = Pool(gpus), Gradient(mix(asks)), [], 0
    for ask in asks:
        pool.place(ask, score)
        asked += ask.total
        if asked >= every * (len(points) + 1) * pool.capacity or ask is asks[-1]:
            held = 1 - pool.free / pool.capacity
            points.append(Point(asked / pool.capacity, held, pool.unusable(gradient)))
    return points
