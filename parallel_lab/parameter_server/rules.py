"""What a server asks a rule of consistency, and what it tells the rule. No torch, no processes.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, section 3.5: sequential,
eventual and bounded-delay consistency are three settings of one dependency.

A server has a *version*: how often it has updated its shard. A worker pulls a version, computes a gradient and pushes
it. The *clock* of a worker is the number of its pushes. The *staleness* of a push is the version that it meets minus
the version from which it was computed: the number of updates that the gradient does not know of.

A rule answers questions about a `State`, whenever a message has arrived: is this push used (`admits`), which pushes
make an update now (`due`), may this worker pull (`may_pull`)? It needs no clock on the wall, so the same object drives
a real server and virtual time. The rules are the strategies of `synchronization`, one file each.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Update(NamedTuple):
    """One gradient of one worker and what became of it. Those that make one update together have the same `version`."""

    worker: int  # who computed it, from 0
    started_s: float  # when the worker began; of a real run only `finished_s` is known, and stands here too
    finished_s: float  # when it took effect on the shared weights, or was refused
    read_version: int  # the weights it was computed at
    version: int  # the weights that it led to; for a dropped one, the weights that it found
    staleness: int  # how many updates the weights had had since it read them
    dropped: bool = False  # whether it came too late to count
    step: int = 0  # how many gradients the worker had computed before
    computed_s: float = 0.0  # when it had been computed; from here to `finished_s` it travelled and waited for others


@dataclass
class State:
    """What a rule looks at; a server keeps one for each shard."""

    live: set[int]  # the workers that still take part: they have neither finished nor died
    version: int = 0  # the number of updates
    clocks: dict[int, int] = field(default_factory=dict)  # the number of pushes of each worker
    read: dict[int, int] = field(default_factory=dict)  # the version from which each worker's last push was computed
    held: list[int] = field(default_factory=list)  # the workers whose push waits for an update, in the order of arrival

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
        """Refuses numbers of workers and servers with which the rule makes no sense."""

    def admits(self, state: State, read: int) -> bool:
        """Whether a push computed from version `read`, counted but not yet held, is used; otherwise it is dropped."""
        return True

    def due(self, state: State) -> Sequence[int]:
        """The workers whose held pushes are to be averaged and applied now."""
        raise NotImplementedError

    def may_pull(self, state: State, worker: int) -> bool:
        """Whether `worker` may read now; otherwise it waits until its own push is part of an update or was dropped."""
        return worker not in state.held


class Ledger:
    """Does what the rule says with pushes that come in; a `Shard` adds the tensors. `now` is a clock, in seconds."""

    def __init__(self, rule: Rule, workers: int, now: Callable[[], float]) -> None:
        self.rule, self.now, everyone = rule, now, range(workers)
        self.state = State(set(everyone), clocks=dict.fromkeys(everyone, 0), read=dict.fromkeys(everyone, 0))
        self.updates: list[Update] = []  # in the order of use; dropped ones when they came
        self._held: dict[int, Update] = {}

    def take(self, push: Update) -> None:
        """Holds or drops a push, and updates if that is due; `version`, `staleness`, `finished_s` are found here."""
        self.state.clocks[push.worker], self.state.read[push.worker] = push.step + 1, push.read_version
        if self.rule.admits(self.state, push.read_version):
            self.state.held.append(push.worker)
            self._held[push.worker] = push
        else:
            self._note(push, dropped=True)
        self._settle()

    def leave(self, worker: int) -> None:
        """Counts `worker` no more, because it is done or dead; a push that it made still counts."""
        self.state.live.discard(worker)
        self._settle()

    def update(self, workers: Collection[int]) -> None:
        """The held pushes of `workers` become one update."""
        for worker in workers:
            self._note(self._held.pop(worker), dropped=False)
        self.state.held = [worker for worker in self.state.held if worker not in workers]
        self.state.version += 1

    def _settle(self) -> None:
        while used := list(self.rule.due(self.state)):
            self.update(used)

    def _note(self, push: Update, dropped: bool) -> None:
        met = self.state.version
        known = {"version": met + (not dropped), "staleness": met - push.read_version, "dropped": dropped}
        self.updates.append(push._replace(finished_s=self.now(), **known))
