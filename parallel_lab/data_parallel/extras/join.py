"""Ranks with different numbers of batches: one that has run out takes part in the others' collectives with zeros.

The idea is that of PyTorch's `torch.distributed.algorithms.join`: each rank announces what it is about to do in one
small all-reduce, so that ranks without a batch know which collectives to join, and when all are done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.trace import tag

DONE, FORWARD, BACKWARD = 0, 1, 2


class Event(NamedTuple):
    """What happens next in the group."""

    kind: int  # DONE (no rank has a batch), FORWARD (buffers are shared), BACKWARD (gradients are averaged)
    source: int  # the lowest rank that still has a batch
    uneven: bool  # whether some rank has none
    mb: int  # the microbatch of the ranks that have one


class Announcements:
    """This rank's part in the announcements of a group, as a guard of its DDP. `last` is the last that was not DONE."""

    def __init__(self) -> None:
        self.last = Event(DONE, 0, False, 0)
        self.count = 0

    def announce(self, ddp: Any, kind: int) -> Event:
        """Says that this rank is about to do `kind` (DONE: it has no batch), and returns what the group will do."""
        n, left = ddp.group.size(), kind == DONE
        said = [kind, 0 if left else n - ddp.group.rank(), left, 0 if left else ddp.mb]
        word = torch.tensor(said, device=ddp.buckets[0].flat.device)
        with tag(part=self.count, mb=max(ddp.mb, 0), phase="join"):
            dist.all_reduce(word, dist.ReduceOp.MAX, group=ddp.group)
        self.count += 1
        heard = word.tolist()
        event = Event(heard[0], n - heard[1], bool(heard[2]), heard[3])
        if event.kind != DONE:
            self.last = event
        return event

    def before_buffers(self, ddp: Any) -> None:
        """Announces that buffers will be shared, if there are any."""
        if any(True for _ in ddp.module.buffers()):
            ddp.source = self.announce(ddp, FORWARD).source

    def before_backward(self, ddp: Any) -> None:
        """Announces that gradients will be averaged."""
        if ddp.averages:
            self.announce(ddp, BACKWARD)


@contextmanager
def joined(ddp: Any, optimizer: torch.optim.Optimizer | None = None) -> Iterator[None]:
    """Lets ranks have different numbers of batches: put each rank's loop over its own inside `ddp.join(optimizer)`.

    A rank that has run out contributes zeros until all have. The mean stays one over all n ranks. At the end, ranks
    that ran out take over weights and buffers, and the state of `optimizer` if given, of one that was there to the end.
    Without it their moments are old, and the next step would differ from the others'. Costs one all-reduce of 32 bytes
    per forward (with buffers) and per backward.
    """
    announcements = Announcements()
    ddp.guard.all.append(announcements)
    try:
        yield
    finally:
        ddp.guard.all.remove(announcements)
        ddp.source = 0
    while (event := announcements.announce(ddp, DONE)).kind != DONE:
        shadow(ddp, event)
    if announcements.last.uneven:
        with tag(mb=max(ddp.mb, 0), phase="join"):
            adopt(ddp, optimizer, announcements.last.source)


def shadow(ddp: Any, event: Event) -> None:
    """Takes part in what the other ranks do, as a rank that has no batch."""
    ddp.mb = event.mb
    if event.kind == FORWARD:
        broadcast_tensors(ddp.module.buffers(), ddp.group, event.source, mb=ddp.mb, phase="forward")
        return
    ddp.state, ddp.averages = "reached", True
    ddp.begin()
    for parameter, (bucket, place) in ddp.place.items():
        parameter.grad = None
        bucket.take(place, 1.0)
    ddp.finish()


def adopt(ddp: Any, optimizer: torch.optim.Optimizer | None, source: int) -> None:
    """Gives every rank the weights, buffers and optimizer's state (moments, step counts, rates) of rank `source`."""
    broadcast_tensors([*ddp.module.parameters(), *ddp.module.buffers()], ddp.group, source)
    if optimizer is not None:
        box: list = [optimizer.state_dict() if ddp.group.rank() == source else None]
        dist.broadcast_object_list(box, group=ddp.group, group_src=source)
        if ddp.group.rank() != source:
            optimizer.load_state_dict(box[0])
