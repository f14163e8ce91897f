"""The one executor: carries out any collective plan on a tensor, with sends and receives of torch.distributed.

A rank walks its row in order. Before a step it waits for what the step needs on this rank; what it needs on other ranks
comes with the messages. A `recv` lands in its chunk directly; a `recv_reduce` lands in a scratch buffer and is added
when the first step that needs it comes up. Nothing else waits until the end of the row, so a piece is added while the
next is on the wire.

The group's own `send` and `recv` are called, which is what `dist.isend` and `dist.irecv` do after their checks; the
plan has been checked already, and ranks of a plan are ranks of the group.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives.chunks import ChunkPlan
from parallel_lab.collectives.scratch import Scratch
from parallel_lab.plan import Op
from parallel_lab.trace import tag

_TAGS = 1 << 20  # where our tags begin, to keep clear of the small ones that users choose
_scratch = Scratch()

Combine = Callable[[Tensor, Tensor], object]
COMBINE: dict[str, Combine] = {
    "sum": Tensor.add_,
    "mean": Tensor.add_,
    "max": lambda held, arrived: torch.maximum(held, arrived, out=held),
}


def execute(
    plan: ChunkPlan, tensor: Tensor, group: dist.ProcessGroup | None = None, op: str = "sum", unit: int = 1
) -> None:
    """Carries out this rank's row of `plan` on `tensor`, in place.

    Args:
        plan: as many rows as the group has ranks.
        tensor: contiguous, of any shape; taken as flat.
        group: the ranks of the plan; the default group if None.
        op: `sum`, `mean` or `max`: what a `recv_reduce` does. A mean is a sum, divided at the end by the group's size.
        unit: the tensor is cut at multiples of `unit` elements (a row of a matrix, for instance).

    Raises:
        ValueError: the tensor is not contiguous, the op is unknown or does not fit the dtype, the group has another
            size than the plan, or this rank is not in the group.
    """
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is not contiguous: pass tensor.contiguous()")
    if op == "mean" and not tensor.is_floating_point():
        raise ValueError(f"a mean of {tensor.dtype} is no {tensor.dtype}: convert the tensor first")
    flat = tensor.detach().view(-1)
    chunks = [flat[start * unit : stop * unit] for start, stop in plan.bounds(flat.numel() // unit)]
    execute_chunks(plan, chunks, group, op)
    if op == "mean":
        flat /= plan.ranks


def execute_chunks(
    plan: ChunkPlan, chunks: Sequence[Tensor], group: dist.ProcessGroup | None = None, op: str = "sum"
) -> None:
    """Carries out this rank's row on chunks that the caller has cut: `chunks[part]`, flat and contiguous, any sizes.

    A chunk of no elements is not sent; sender and receiver agree, since both know its size.
    """
    if op not in COMBINE:
        raise ValueError(f"unknown op {op!r}: expected one of {', '.join(COMBINE)}")
    group = dist.group.WORLD if group is None else group
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError("this rank is not in the group")
    assert group is not None
    if plan.ranks != group.size():
        raise ValueError(f"the plan is for {plan.ranks} ranks, the group has {group.size()}")
    _Walk(plan, chunks, group, COMBINE[op]).run(rank)


class _Walk:
    """One rank's walk through its row: the messages under way, and where those to be added have landed."""

    def __init__(self, plan: ChunkPlan, chunks: Sequence[Tensor], group: dist.ProcessGroup, combine: Combine) -> None:
        self.plan = plan
        self.chunks = chunks
        self.group = group
        self.combine = combine
        self.works: dict[Op, dist.Work] = {}
        self.landed: dict[Op, Tensor] = {}

    def run(self, rank: int) -> None:
        row, needs = self.plan.rows[rank], self.plan.needs
        for op in row:
            for before in needs.get(op, ()):
                self.finish(before)
            if self.chunks[op.part].numel():
                self.works[op] = self.issue(op)
        for op in row:
            self.finish(op)

    def issue(self, op: Op) -> dist.Work:
        chunk = self.chunks[op.part]
        number = _TAGS + op.mb * len(self.chunks) + op.part
        with tag(kind=op.kind, part=op.part, mb=op.mb):
            if op.kind == "send":
                return self.group.send([chunk], op.peer, number)
            if op.kind == "recv_reduce":
                chunk = self.landed[op] = _scratch.take(chunk)
            return self.group.recv([chunk], op.peer, number)

    def finish(self, op: Op) -> None:
        """Waits until `op` is over; for what is over already, or is another rank's, there is nothing to do."""
        work = self.works.pop(op, None)
        if work is None:
            return
        work.wait()
        if op.kind == "recv_reduce":
            arrived = self.landed.pop(op)
            self.combine(self.chunks[op.part], arrived)
            _scratch.give(arrived)
