"""Consistency: which pushes a server uses, when it updates, and who may read. Rules alone: no torch, no processes.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, section 3.5 (sequential,
eventual and bounded delay are three settings of one dependency); Dean et al., "Large scale distributed deep networks",
NeurIPS 2012, section 4.1 (asynchronous: Downpour SGD); Ho et al., "More effective distributed ML via a stale
synchronous parallel parameter server", NeurIPS 2013, section 2; Chen et al., "Revisiting distributed synchronous
SGD", 2016, section 3 (backup workers).

A server has a *version*: how often it has updated its shard. A worker reads a version, computes a gradient and pushes
it; its *clock* is how many pushes it has made. The *staleness* of a push is the version it meets minus the version it
was computed from: how many updates the gradient does not know of.

A rule answers these questions about a `State`, and the server asks them under its lock whenever something happened.
Whatever becomes true stays true until the next event, so no answer needs a clock on the wall:

| rule                | is this push used? | update when                               | may a worker read?            |
|---------------------|--------------------|-------------------------------------------|-------------------------------|
| Synchronous         | yes                | every live worker has pushed              | once its own push is applied  |
| Asynchronous        | yes                | at once                                   | always                        |
| StaleSynchronous(b) | yes                | at once                                   | if at most b clocks ahead     |
| Partial(k)          | if it is not late  | k pushes are there, or all                | once its own push is applied  |
| Mixed(u)            | yes                | at once if computed from a version below  | once its own push is applied  |
|                     |                    | u of the first server, else once all have |                               |

Several servers hold pushes of several workers, and workers wait for all servers: so a push must be held everywhere or
nowhere. Hence no server decides for itself. The first one says to each worker that reads whether its next push is a
*synchronous* one, the worker never goes back, and counts these pushes: its *rounds*. Each push tells every server its
round, 0 if it is none. No order of events lets workers wait for each other: a push of round r is held only until every
live worker is known to have pushed one of round r or later (it may be lost), so nobody holds up the live worker with
the fewest rounds. It goes on, and catches up, until all have the same number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server.state import State


class Rule(Protocol):
    """What a server asks. `worker` is an index from 0; a push is in `state.clocks` and not yet in `state.held`."""

    def check(self, workers: int, servers: int = 1) -> None:
        """Raises ValueError if the rule makes no sense with so many workers and servers."""
        ...

    def together(self, state: State) -> bool:
        """Whether pushes computed from the present version are synchronous; the version alone decides.

        Workers heed the first server's answer.
        """
        ...

    def admits(self, state: State, read_version: int) -> bool:
        """Whether a push computed from `read_version` is used; otherwise it is dropped."""
        ...

    def due(self, state: State) -> Sequence[int]:
        """The workers whose pushes held are to be averaged and applied now; none for not yet."""
        ...

    def may_pull(self, state: State, worker: int) -> bool:
        """Whether `worker` may read now; otherwise it waits."""
        ...


class _Any:
    """The answers that most rules share: any numbers will do, no push is synchronous, and every push is used."""

    def check(self, workers: int, servers: int = 1) -> None:
        """Any numbers will do."""

    def together(self, state: State) -> bool:
        """Never."""
        return False

    def admits(self, state: State, read_version: int) -> bool:
        """Every push is used."""
        return True


@dataclass(frozen=True)
class Synchronous(_Any):
    """Bulk synchronous: an update is the mean over all live workers, and everybody reads the newest version.

    The staleness of every push is 0, and training equals that of one process on the global batch.
    """

    def together(self, state: State) -> bool:
        """Always."""
        return True

    def due(self, state: State) -> Sequence[int]:
        """All, once every live worker has pushed."""
        return state.held if state.round_complete() else ()

    def may_pull(self, state: State, worker: int) -> bool:
        """Once the worker's own push is part of an update."""
        return worker not in state.held


@dataclass(frozen=True)
class Asynchronous(_Any):
    """Each push is an update of its own, and nobody waits (Dean et al. 2012, Downpour SGD). Staleness has no bound."""

    def due(self, state: State) -> Sequence[int]:
        """The first, as soon as there is one."""
        return state.held[:1]

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

    def due(self, state: State) -> Sequence[int]:
        """The first, as soon as there is one."""
        return state.held[:1]

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
class Partial(_Any):
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

    def due(self, state: State) -> Sequence[int]:
        """All, once k pushes are there, or one of every live worker."""
        return state.held if len(state.held) >= self.k or state.all_held() else ()

    def may_pull(self, state: State, worker: int) -> bool:
        """Once the worker's own push is part of an update, or was dropped."""
        return worker not in state.held


@dataclass(frozen=True)
class Mixed(_Any):
    """Asynchronous until the first server has made `switch_at` updates, then synchronous, from wherever each worker is.

    A push computed from an earlier version is applied at once and by itself on every server, even where synchronous
    ones are held. After the switch each worker makes at most one such push, so that on the first server a push of the
    first round misses fewer updates than there are workers. From the second round on the staleness is 0 everywhere:
    all workers are synchronous, round follows round with no update between, and each reads after its own.

    TypeError or ValueError if `switch_at` is not a whole number from 0 up.
    """

    switch_at: int

    def __post_init__(self) -> None:
        whole("switch_at", self.switch_at, 0)

    def together(self, state: State) -> bool:
        """After the switch."""
        return state.version >= self.switch_at

    def due(self, state: State) -> Sequence[int]:
        """A push of before the switch at once; the others, once every live worker has made one."""
        early = [worker for worker in state.held if not state.rounds[worker]]
        return early[:1] or (state.held if state.round_complete() else ())

    def may_pull(self, state: State, worker: int) -> bool:
        """Once the worker's own push is part of an update: at once before the switch."""
        return worker not in state.held
