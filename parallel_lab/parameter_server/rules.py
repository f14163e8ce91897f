"""What a server asks a rule of consistency, and what it tells the rule. No torch, no processes.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, section 3.5: sequential,
eventual and bounded-delay consistency are three settings of one dependency.

A server has a *version*: how often it has updated its shard. A worker pulls a version, computes a gradient and pushes
it. The *clock* of a worker is the number of its pushes. The *staleness* of a push is the version that it meets minus
the version from which it was computed: the number of updates that the gradient does not know of.

A rule answers four questions about a `State`. The server asks them whenever a message has arrived. So a rule needs no
clock on the wall, and the same rule object drives a real server and virtual time. The rules are the strategies of
`synchronization`, one file each:

| rule          | does it make sense?  | is this push used? | which pushes make an update? | may this worker pull?     |
|---------------|----------------------|--------------------|------------------------------|---------------------------|
|               | `check`              | `admits`           | `due`                        | `may_pull`                |
| Synchronous() | always               | yes                | all, once all have pushed    | once its push is applied  |
| Asynchronous()| always               | yes                | each by itself, at once      | always                    |
| Stale(b)      | always               | yes                | each by itself, at once      | if at most b clocks ahead |
| Partial(k)    | with k workers       | if it is not late  | all, once k are there        | once its push is applied  |
| Mixed(u)      | with one server      | yes                | each by itself up to version | once its push is applied  |
|               |                      |                    | u, then all together         |                           |
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class State:
    """What a rule looks at; a server keeps one for each shard.

    Attributes:
        live: the workers that still take part: they have neither finished nor died.
        version: the number of updates.
        clocks: the number of pushes of each worker.
        read: the version from which each worker's last push was computed.
        held: the workers whose push waits for an update, in the order of arrival.
    """

    live: set[int]
    version: int = 0
    clocks: dict[int, int] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, workers: Iterable[int]) -> "State":
        """A state in which each of `workers` lives and has pushed nothing."""
        live = set(workers)
        return cls(live, clocks=dict.fromkeys(live, 0), read=dict.fromkeys(live, 0))

    def updated(self, used: Collection[int]) -> None:
        """The held pushes of the workers `used` have become an update."""
        self.held = [worker for worker in self.held if worker not in used]
        self.version += 1

    def slowest(self) -> int:
        """The clock of the slowest live worker; 0 where there is none."""
        return min((self.clocks[worker] for worker in self.live), default=0)

    def all_held(self) -> bool:
        """Whether every live worker has pushed, and at least one push is held."""
        return bool(self.held) and self.live <= set(self.held)


class Rule:
    """The questions of a server, with the answers of synchronous SGD where rules agree; `worker` counts from 0."""

    in_step = False  # whether all workers go in step: a server then answers them in the order of its plan

    def check(self, workers: int, servers: int) -> None:
        """Looks whether the rule makes sense with so many workers and servers.

        Raises:
            ValueError: it does not.
        """

    def admits(self, state: State, read: int) -> bool:
        """Whether a push computed from version `read` is used; otherwise the server drops it.

        The push is counted in `state.clocks` already, and is not yet in `state.held`.
        """
        return True

    def due(self, state: State) -> Sequence[int]:
        """The workers whose held pushes are to be averaged and applied now."""
        raise NotImplementedError

    def may_pull(self, state: State, worker: int) -> bool:
        """Whether `worker` may read now; otherwise it waits until its own push is part of an update or was dropped."""
        return worker not in state.held
