"""What a server tells of a run: what became of each push."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Push(NamedTuple):
    """One push, as its server saw it.

    Attributes:
        shard: the shard that it was for.
        worker: who pushed it.
        step: the number of pushes that the worker had made before.
        read: the version from which the gradient was computed.
        version: the version that the push met. An applied push is part of the update from it to the next.
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
        """The number of updates that the gradient did not know of."""
        return self.version - self.read


@dataclass
class Served:
    """What one server did.

    Attributes:
        pushes: the pushes in the order of use; dropped ones when they came.
        version: the number of updates.
        parameters: the shard at the end, (elements,).
        sent_bytes: what left this rank.
    """

    pushes: list[Push] = field(default_factory=list)
    version: int = 0
    parameters: Tensor = field(default_factory=lambda: torch.empty(0))
    sent_bytes: int = 0

    @property
    def staleness(self) -> list[int]:
        """The staleness of each push that was used, in the order of use."""
        return [push.staleness for push in self.pushes if not push.dropped]

    @property
    def dropped(self) -> int:
        """The number of pushes that came too late to be used."""
        return sum(push.dropped for push in self.pushes)
