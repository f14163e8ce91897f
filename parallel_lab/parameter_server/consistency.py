"""Consistency: which pushes a server uses, when it updates, and who may read. Rules alone: no torch, no processes.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, section 3.5 (sequential,
eventual and bounded delay are three settings of one dependency); Dean et al., "Large scale distributed deep networks",
NeurIPS 2012, section 4.1 (asynchronous: Downpour SGD); Ho et al., "More effective distributed ML via a stale
synchronous parallel parameter server", NeurIPS 2013, section 2; Chen et al., "Revisiting distributed synchronous
SGD", 2016, section 3 (backup workers).

A server has a *version*: how often it has updated its shard. A worker reads a version, computes a gradient and pushes
it; its *clock* is how many pushes it has made. The *staleness* of a push is the version it meets minus the version it
was computed from: how many updates the gradient does not know of.

A rule answers three questions about a `State`, and the server asks them under its lock whenever something happened.
Whatever becomes true stays true until the next event, so no answer needs a clock on the wall:

| rule                | is this push used? | update when                  | may a worker read?              |
|---------------------|--------------------|------------------------------|---------------------------------|
| Synchronous         | yes                | every live worker has pushed | once its own push is applied    |
| Asynchronous        | yes                | at once                      | always                          |
| StaleSynchronous(b) | yes                | at once                      | if it is at most b clocks ahead |
| Partial(k)          | if it is not late  | k pushes are there, or all   | once its own push is applied    |
| Mixed(u)            | yes                | u times at once, then as Synchronous | likewise                |
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from parallel_lab.agree.arguments import whole


@dataclass
class State:
    """What a rule looks at; the server keeps it, one for each shard.

    Attributes:
        live: the workers that still take part: neither finished nor dead.
        version: updates made.
        clocks: pushes made, by worker.
        held: the workers whose push waits for the next update, in the order of arrival.
        unheard: after a spare has taken over, the live workers that it has not heard of yet, so that it cannot know
            their clocks.
    """

    live: set[int]
    version: int = 0
    clocks: dict[int, int] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    unheard: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, workers: Iterable[int], version: int = 0) -> "State":
        """A state in which each of `workers` lives and has pushed nothing."""
        live = set(workers)
        return cls(live, version, dict.fromkeys(live, 0))

    def slowest(self) -> int:
        """The clock of the slowest live worker, as far as heard of; 0 where there is none."""
        return min((self.clocks[worker] for worker in self.live - self.unheard), default=0)

    def all_held(self) -> bool:
        """Whether somebody has pushed, and every live worker has."""
        return bool(self.held) and self.live <= set(self.held)

    def step_complete(self) -> bool:
        """Whether every live worker has made the step of the push held that is furthest behind.

        The same as `all_held`, unless pushes were lost with a server. Then the shards of several servers may each hold
        the push of another worker; if each waited for one more of the others, all would wait for ever. Counting
        steps, the slowest worker never waits.
        """
        if not self.held or self.live & self.unheard:
            return False
        step = min(self.clocks[worker] for worker in self.held)
        return all(self.clocks[worker] >= step for worker in self.live)


class Rule(Protocol):
    """What a server asks. `worker` is an index from 0; a push is in `state.clocks` and not yet in `state.held`."""

    def check(self, workers: int, servers: int = 1) -> None:
        """Raises ValueError if the rule makes no sense with so many workers and servers."""
        ...

    def admits(self, state: State, read_version: int) -> bool:
        """Whether a push computed from `read_version` is used; otherwise it is dropped."""
        ...

    def due(self, state: State) -> bool:
        """Whether the pushes held are to be averaged and applied now."""
        ...

    def may_pull(self, state: State, worker: int) -> bool:
        """Whether `worker` may read now; otherwise it waits."""
        ...


class _Any:
    """The answers that most rules share: any number of workers, and every push is used."""

    def check(self, workers: int, servers: int = 1) -> None:
        """Any numbers will do."""

    def admits(self, state: State, read_version: int) -> bool:
        """Every push is used."""
        return True


@dataclass(frozen=True)
class Synchronous(_Any):
    """Bulk synchronous: an update is the mean over all live workers, and everybody reads the newest version.

    The staleness of every push is 0, and training equals that of one process on the global batch.
    """

    def due(self, state: State) -> bool:
        """Once every live worker has pushed."""
        return state.step_complete()

    def may_pull(self, state: State, worker: int) -> bool:
        """Once the worker's own push is part of an update."""
        return worker not in state.held


@dataclass(frozen=True)
class Asynchronous(_Any):
    """Each push is an update of its own, and nobody waits (Dean et al. 2012, Downpour SGD). Staleness has no bound."""

    def due(self, state: State) -> bool:
        """As soon as there is a push."""
        return bool(state.held)

    def may_pull(self, state: State, worker: int) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class StaleSynchronous(_Any):
    """Asynchronous, but a worker starts a step only if it is at most `bound` clocks ahead of the slowest live one.

    With bound 0 all workers work on the same step. Ho et al. 2013, section 2. TypeError or ValueError if `bound` is not
    a whole number from 0 up.
    """

    bound: int

    def __post_init__(self) -> None:
        whole("bound", self.bound, 0)

    def due(self, state: State) -> bool:
        """As soon as there is a push."""
        return bool(state.held)

    def may_pull(self, state: State, worker: int) -> bool:
        """Unless the worker is more than `bound` clocks ahead."""
        return state.clocks[worker] - state.slowest() <= self.bound

    def staleness_bound(self, workers: int) -> int:
        """The most updates that a push can miss: (workers - 1) (2 bound + 1).

        A worker that starts step c finds each other one at clock c - bound at least, and while it works on that step
        none gets beyond c + bound + 1: the last step that the rule lets it start is c + bound.
        """
        return (workers - 1) * (2 * self.bound + 1)


@dataclass(frozen=True)
class Partial:
    """An update is the mean of the first `k` pushes of a version; later ones are dropped (Chen et al. 2016).

    With n workers, n - k are backups: that many slow ones delay nobody. Where fewer than k live, all of them are
    waited for. Each server chooses for its own shard. Once two servers have died in one run, their spares may hold
    pushes of different workers and wait for each other: use `Synchronous` where that must not happen. TypeError or
    ValueError if `k` is not a whole number from 1 up.
    """

    k: int

    def __post_init__(self) -> None:
        whole("k", self.k, 1)

    def check(self, workers: int, servers: int = 1) -> None:
        """ValueError if there are fewer than k workers."""
        if self.k > workers:
            raise ValueError(f"Partial(k={self.k}) waits for {self.k} pushes and there are {workers} workers: lower k")

    def admits(self, state: State, read_version: int) -> bool:
        """Unless it was computed from an older version than the present one."""
        return read_version == state.version

    def due(self, state: State) -> bool:
        """Once k pushes are there, or one of every live worker."""
        return len(state.held) >= self.k or state.all_held()

    def may_pull(self, state: State, worker: int) -> bool:
        """Once the worker's own push is part of an update, or was dropped."""
        return worker not in state.held


@dataclass(frozen=True)
class Mixed(_Any):
    """Asynchronous for the first `switch_at` updates, then synchronous, from wherever each worker is by then.

    The first synchronous update may still hold gradients computed before the switch. TypeError or ValueError if
    `switch_at` is not a whole number from 0 up.
    """

    switch_at: int

    def __post_init__(self) -> None:
        whole("switch_at", self.switch_at, 0)

    def check(self, workers: int, servers: int = 1) -> None:
        """ValueError if there are several servers."""
        if servers > 1:
            text = "each would switch at another moment, and workers could wait for each other"
            raise ValueError(
                f"{self} counts the updates of one server, and there are {servers}: {text}. Use servers=1."
            )

    def due(self, state: State) -> bool:
        """As soon as there is a push before the switch, once every live worker has pushed after it."""
        return bool(state.held) if state.version < self.switch_at else state.all_held()

    def may_pull(self, state: State, worker: int) -> bool:
        """Always before the switch, once the worker's own push is part of an update after it."""
        return worker not in state.held
