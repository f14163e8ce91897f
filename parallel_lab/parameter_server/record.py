"""What a rank tells of a run through parameter servers."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


class Push(NamedTuple):
    """One push, as its server saw it.

    Attributes:
        shard, worker, step: which shard, who pushed, and in which of its steps.
        read: the version from which the gradient was computed.
        version: the version that the push met; an applied one is part of the update from it to the next.
        dropped: whether it came too late to be used.
        time_s: when it was used or dropped, in seconds since the trace began.
    """

    shard: int
    worker: int
    step: int
    read: int
    version: int
    dropped: bool = False
    time_s: float = 0.0

    @property
    def staleness(self) -> int:
        """How many updates the gradient did not know of."""
        return self.version - self.read


@dataclass
class Record:
    """What one rank did.

    Attributes:
        role: `server`, `worker`, or `spare` (a server that waits for another to die).
        losses: of a worker, the loss of each of its steps, before the push.
        versions: of a worker, the version that each step read (of several servers, the oldest); of a server, the
            version after each update.
        weights: of a worker, the model's state dict after the last update of all; of a server, its piece of the
            parameters (`vector.named_pieces`).
        seconds: from the first request to the last.
        sent_bytes: the bytes that left this rank, requests included.
        pushes: of a server, each push in the order of use; dropped ones when they came.
        lost: of a spare, how many updates died with the server whose place it took: those made after its last snapshot,
            as far as a worker had read them.
        taken: of a spare, the shards that it took over.
    """

    role: str
    losses: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    sent_bytes: int = 0
    pushes: list[Push] = field(default_factory=list)
    lost: int = 0
    taken: list[int] = field(default_factory=list)

    @property
    def staleness(self) -> list[int]:
        """The staleness of each push that was used, in the order of use."""
        return [push.staleness for push in self.pushes if not push.dropped]

    @property
    def dropped(self) -> int:
        """How many pushes came too late to be used."""
        return sum(push.dropped for push in self.pushes)
