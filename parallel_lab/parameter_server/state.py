"""What a server knows of its workers: all that a rule of consistency may look at. No torch, no processes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field


@dataclass
class State:
    """What a rule looks at; the server keeps it, one for each shard.

    Attributes:
        live: the workers that still take part: neither finished nor dead.
        version: updates made.
        clocks: pushes made, by worker.
        rounds: how many of them were synchronous (`Rule.together`), by worker.
        held: the workers whose push waits for an update, in the order of arrival.
        unheard: after a spare has taken over, the live workers that it has not heard of yet, so that it cannot know
            their clocks.
    """

    live: set[int]
    version: int = 0
    clocks: dict[int, int] = field(default_factory=dict)
    rounds: dict[int, int] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    unheard: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, workers: Iterable[int], version: int = 0) -> "State":
        """A state in which each of `workers` lives and has pushed nothing."""
        live = set(workers)
        return cls(live, version, dict.fromkeys(live, 0), dict.fromkeys(live, 0))

    def told(self, worker: int, clock: int, rounds: int) -> None:
        """`worker` has made `clock` pushes, `rounds` of them synchronous, whether or not the last one came here."""
        self.clocks[worker] = max(clock, self.clocks[worker])
        self.rounds[worker] = max(rounds, self.rounds[worker])
        self.unheard.discard(worker)

    def updated(self, used: Collection[int]) -> None:
        """The pushes held of the workers `used` have become an update."""
        self.held = [worker for worker in self.held if worker not in used]
        self.version += 1

    def slowest(self) -> int:
        """The clock of the slowest live worker, as far as heard of; 0 where there is none."""
        return min((self.clocks[worker] for worker in self.live - self.unheard), default=0)

    def all_held(self) -> bool:
        """Whether somebody has pushed, and every live worker has."""
        return bool(self.held) and self.live <= set(self.held)

    def round_complete(self) -> bool:
        """Whether every live worker has made the round of the push held that is furthest behind.

        The same as `all_held`, unless pushes were lost with a server. Then the shards of several servers may each hold
        the push of another worker; if each waited for one more of the others, all would wait for ever. Counting
        rounds, the slowest worker never waits.
        """
        if not self.held or self.live & self.unheard:
            return False
        first = min(self.rounds[worker] for worker in self.held)
        return all(self.rounds[worker] >= first for worker in self.live)
