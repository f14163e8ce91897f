"""What training came to: the updates in the order in which they took effect, and a `Record` a rank."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from parallel_lab.parameter_server import Push


class Update(NamedTuple):
    """One gradient of one worker and what became of it; real runs and virtual time share this type.

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


def updates_of(pushes: Iterable[Push]) -> list[Update]:
    """What became of each push of one server, in the order of use, in the form that virtual time uses as well."""
    return [
        Update(
            push.worker,
            started_s=push.time_s,
            finished_s=push.time_s,
            read_version=push.read,
            version=push.version + (not push.dropped),
            staleness=push.staleness,
            dropped=push.dropped,
            step=push.step,
            computed_s=push.time_s,
        )
        for push in pushes
    ]


def histogram(staleness: Iterable[int]) -> dict[int, int]:
    """How many gradients had each staleness, smallest first: `histogram([0, 2, 2])` is `{0: 1, 2: 2}`."""
    return dict(sorted(Counter(staleness).items()))
