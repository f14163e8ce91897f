"""What a server tells of a run: what became of each push. Virtual time uses the same type."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Update(NamedTuple):
    """One gradient of one worker and what became of it.

    The *version* of the weights counts the updates applied to them, from 0. Gradients that are averaged into one
    update have the same `version`.

    Attributes:
        worker: who computed it, from 0.
        started_s: when the worker began to compute. Of a real run only `finished_s` is known, and stands here too.
        finished_s: when the gradient took effect on the shared weights, or was refused.
        read_version: the weights it was computed at.
        version: the weights that it led to; for a dropped one, the weights that it found.
        staleness: how many updates the weights had had since it read them: 0 for a gradient at the newest weights.
        dropped: whether it came too late to count.
        step: how many gradients the worker had computed before.
        computed_s: when it had been computed; between here and `finished_s` it travelled and waited for others.
    """

    worker: int
    started_s: float
    finished_s: float
    read_version: int
    version: int
    staleness: int
    dropped: bool = False
    step: int = 0
    computed_s: float = 0.0


@dataclass
class Served:
    """What one server did.

    Attributes:
        updates: the pushes in the order of use; dropped ones when they came.
        version: the number of updates of the weights.
        parameters: the shard at the end, (elements,).
        sent_bytes: what left this rank.
    """

    updates: list[Update] = field(default_factory=list)
    version: int = 0
    parameters: Tensor = field(default_factory=lambda: torch.empty(0))
    sent_bytes: int = 0

    @property
    def staleness(self) -> list[int]:
        """The staleness of each push that was used, in the order of use."""
        return [update.staleness for update in self.updates if not update.dropped]

    @property
    def dropped(self) -> int:
        """The number of pushes that came too late to be used."""
        return sum(update.dropped for update in self.updates)
