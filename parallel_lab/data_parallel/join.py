"""Ranks with different numbers of batches: one that has run out takes part in the others' collectives with zeros.

Without it, the ranks that still have batches wait for ever for the one that left. The idea is that of PyTorch's
`torch.distributed.algorithms.join`: inside the context each rank announces what it is about to do in one small
all-reduce, so that ranks without a batch know which collectives to join, and when all are done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist

DONE, FORWARD, BACKWARD = 0, 1, 2


class Event(NamedTuple):
    """What happens next in the group.

    Attributes:
        kind: DONE (no rank has a batch), FORWARD (buffers are shared), BACKWARD (gradients are averaged).
        source: the lowest rank that still has a batch.
        uneven: whether some rank has none.
    """

    kind: int
    source: int
    uneven: bool


class Announcer:
    """This rank's part in the announcements of a group. `last` is the last event that was not DONE."""

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.last = Event(DONE, 0, False)

    def announce(self, kind: int) -> Event:
        """Says that this rank is about to do `kind` (DONE: it has no batch), and returns what the group will do."""
        n, shadow = self.group.size(), kind == DONE
        word = torch.tensor([kind, 0 if shadow else n - self.group.rank(), shadow], device=self.device)
        dist.all_reduce(word, dist.ReduceOp.MAX, group=self.group)
        event = Event(int(word[0]), n - int(word[1]), bool(word[2]))
        if event.kind != DONE:
            self.last = event
        return event


@contextmanager
def joined(
    announcer: Announcer,
    shadow_forward: Callable[[int], None],
    shadow_backward: Callable[[], None],
    adopt: Callable[[int], None],
) -> Iterator[None]:
    """Runs the rank's own batches inside, then shadows the others until no rank has one left.

    `shadow_forward(source)` and `shadow_backward()` take part in one event; `adopt(source)` gives all ranks the state
    of a rank that was there to the end, and is called only if some were not.
    """
    yield
    while (event := announcer.announce(DONE)).kind != DONE:
        if event.kind == FORWARD:
            shadow_forward(event.source)
        else:
            shadow_backward()
    if announcer.last.uneven:
        adopt(announcer.last.source)


def share_state(optimizer: torch.optim.Optimizer, group: dist.ProcessGroup, source: int) -> None:
    """Gives every rank the optimizer's state of rank `source`: moments, step counts and learning rates."""
    box: list = [optimizer.state_dict() if group.rank() == source else None]
    dist.broadcast_object_list(box, group=group, group_src=source)
    if group.rank() != source:
        optimizer.load_state_dict(box[0])
