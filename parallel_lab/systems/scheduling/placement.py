"""Fragments: on which machine a task goes, and what is left free and of no use to the next one.

A cluster may have many free GPUs and no room. Tasks that take a part of a GPU leave parts, and jobs that need 8 GPUs of
one machine find 7 on each. `Pool` is a cluster of machines, and a rule says on which one a task goes:

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
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

WHOLE = 1000  # thousandths of a GPU
TRIES = 50  # draws of a place before all places are listed
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
        return tuple(way(state, ask, free) for free in sorted(set(state)) if free >= ask.thousandths)
    return (way(state, ask, WHOLE),) if state.count(WHOLE) >= ask.gpus else ()


def way(state: State, ask: Ask, free: int) -> Way:
    """The way that uses GPUs of which so much is free."""
    first = state.index(free)
    taken = [rest - ask.thousandths for rest in state[first : first + ask.gpus]]
    return Way(state, tuple(sorted((*state[:first], *taken, *state[first + ask.gpus :]))), free)


def best_fit(way: Way) -> float:
    """The GPU, and then the machine, that has least free."""
    return 1e6 * way.free + sum(way.before)


def worst_fit(way: Way) -> float:
    """The GPU, and then the machine, that has most free."""
    return -best_fit(way)


@dataclass
class Anywhere:
    """A place with room, drawn; each is as likely as any other."""

    seed: int

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def pick(self, machines: Sequence[State], ask: Ask) -> Way | None:
        """One of the GPUs with room for a part, or of the machines with room for whole ones; None without any."""
        slots = range(max(map(len, machines)) if ask.thousandths < WHOLE else 1)
        for _ in range(TRIES):  # nearly always some draw finds a place, and the list of all places is not needed
            state, slot = self.dice.choice(machines), self.dice.choice(slots)
            if spots := self.spots(state, ask, slot):
                return way(state, ask, spots[0])
        found = [(state, free) for state in machines for slot in slots for free in self.spots(state, ask, slot)]
        state, free = self.dice.choice(found) if found else ((), 0)
        return way(state, ask, free) if state else None

    @staticmethod
    def spots(state: State, ask: Ask, slot: int) -> tuple[int, ...]:
        """How much is free where the task would go: on the GPU of this number, or on whole ones."""
        if ask.thousandths == WHOLE:
            return (WHOLE,) if state.count(WHOLE) >= ask.gpus else ()
        return state[slot : slot + 1] if slot < len(state) and state[slot] >= ask.thousandths else ()


def mix(asks: Iterable[Ask]) -> dict[Ask, float]:
    """The probability of each kind of task."""
    counts = Counter(asks)
    return {ask: times / counts.total() for ask, times in counts.items()}


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

    def __call__(self, way: Way) -> float:
        """The growth in thousandths, and a little of the best fit, which breaks ties."""
        return self.unusable(way.after) - self.unusable(way.before) + 1e-9 * best_fit(way)

    def unusable(self, state: State) -> float:
        """The expected free thousandths of a machine that the next task could not use."""
        if state not in self.known:
            self.known[state] = sum(part * wasted(state, ask) for ask, part in self.mix.items())
        return self.known[state]


Rule = Callable[[Way], float] | Anywhere  # the way with the least is taken, or a place is drawn


class Pool:
    """Machines of a cluster under a rule; tasks come and nobody leaves.

    Machines in the same state are alike, so a rule looks at states. For each kind of task the ways stand in a heap, the
    least first. Those from states that are new are added when such a task comes; those from states that are gone are
    dropped when they come up.
    """

    def __init__(self, gpus: Iterable[int], rule: Rule) -> None:
        self.rule = rule
        self.machines: list[State] = [(WHOLE,) * each for each in gpus]
        self.states = Counter(self.machines)
        self.capacity = self.free = sum(map(sum, self.machines))  # thousandths
        self.heaps: dict[Ask, list[tuple[float, int, Way]]] = {}
        self.numbers = count()
        self.appeared, self.read = list(self.states), Counter[Ask]()  # states as they came; how many each heap has seen

    def place(self, ask: Ask) -> bool:
        """Places a task where the rule says; False where there is no room for it."""
        way = self.rule.pick(self.machines, ask) if isinstance(self.rule, Anywhere) else self.least(ask, self.rule)
        if way is None:
            return False
        self.machines[self.machines.index(way.before)] = way.after
        self.states[way.before] -= 1
        self.states[way.after] += 1
        if self.states[way.after] == 1:
            self.appeared.append(way.after)
        self.free -= ask.total
        return True

    def least(self, ask: Ask, score: Callable[[Way], float]) -> Way | None:
        """The way with the least score, of those that there are."""
        heap = self.heaps.setdefault(ask, [])
        for state in set(self.appeared[self.read[ask] :]):
            if self.states[state]:
                for way in ways(state, ask):
                    heappush(heap, (score(way), next(self.numbers), way))
        self.read[ask] = len(self.appeared)
        while heap and not self.states[heap[0][-1].before]:
            heappop(heap)
        return heap[0][-1] if heap else None

    def unusable(self, gradient: Gradient) -> float:
        """The part of the cluster that is free and of no use to the next task, in expectation."""
        return sum(gradient.unusable(state) * alike for state, alike in self.states.items()) / self.capacity


class Point(NamedTuple):
    """How full a cluster is when tasks that ask for `asked` of it have come; all are parts of the cluster."""

    asked: float
    held: float
    unusable: float


def filled(gpus: Iterable[int], asks: Sequence[Ask], rule: Rule, *, every: float = 0.02) -> list[Point]:
    """Lets tasks come one by one; who finds no room is sent away.

    Args:
        gpus: of each machine.
        asks: of the tasks, in their order; the mix is theirs.
        rule: where each one goes.
        every: a point each time that so much more of the cluster was asked for, and one at the end.
    """
    pool, gradient, points, asked = Pool(gpus, rule), Gradient(mix(asks)), [], 0
    for ask in asks:
        pool.place(ask)
        asked += ask.total
        if asked >= every * (len(points) + 1) * pool.capacity or ask is asks[-1]:
            held = 1 - pool.free / pool.capacity
            points.append(Point(asked / pool.capacity, held, pool.unusable(gradient)))
    return points
