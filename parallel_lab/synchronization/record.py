"""What training came to on one rank, whatever the strategy."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from parallel_lab.parameter_server import Update

__all__ = ["Record", "Update", "histogram"]


@dataclass
class Record:
    """What training came to on one rank.

    Attributes:
        losses: of synchronous training without servers, the mean over each step's global batch; otherwise of this
            rank's own batches, each before its update. Empty on a server.
        staleness: one number for each gradient used that this rank knows the fate of: its own, on a server everybody's.
        weights: at the end, by name as in `state_dict()`; empty on one of several servers, which has only a part.
        sent_bytes: what left this rank while it trained, as the recorder saw it.
        updates: on a server, the gradients in the order in which they took effect; empty elsewhere.
        seconds: how long this rank trained, by the clock.
    """

    losses: list[float] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    sent_bytes: int = 0
    updates: list[Update] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def dropped(self) -> int:
        """How many gradients came too late to be used; known on a server."""
        return sum(update.dropped for update in self.updates)


def histogram(staleness: Iterable[int]) -> dict[int, int]:
    """How many gradients had each staleness, smallest first: `histogram([0, 2, 2])` is `{0: 1, 2: 2}`."""
    return dict(sorted(Counter(staleness).items()))
