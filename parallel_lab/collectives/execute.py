"""The one executor: carries out any collective plan on a tensor, with sends and receives of torch.distributed.

A rank walks its row in order. Before a step it waits for what the step needs on this rank; what it needs on other ranks
comes with the messages. A `recv` lands in its chunk directly; a `recv_reduce` lands in a scratch buffer and is added
when the first step that needs it comes up. Nothing else waits until the end of the row, so a piece is added while the
next is on the wire.

The group's own `send` and `recv` are called, which is what `dist.isend` and `dist.irecv` do after their checks; the
plan has been checked already, and ranks of a plan are ranks of the group. The loop is kept lean, since at 4 MiB and
4 ranks a microsecond of Python per step is half a percent of the time.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives.chunks import ChunkPlan
from parallel_lab.collectives.lanes import Lanes, lanes, open_second
from parallel_lab.collectives.scratch import Scratch
from parallel_lab.plan import Op
from parallel_lab.runtime.group import member
from parallel_lab.runtime.tags import collective
from parallel_lab.trace import recorder, tag

_scratch = Scratch()

Combine = Callable[[Tensor, Tensor], object]
Waits = Sequence[Sequence[int]]
COMBINE: dict[str, Combine] = {
    "sum": Tensor.add_,
    "mean": Tensor.add_,
    "max": lambda held, arrived: torch.maximum(held, arrived, out=held),
}


def execute(
    plan: ChunkPlan, tensor: Tensor, group: dist.ProcessGroup | None = None, op: str = "sum", unit: int = 1
) -> None:
    """Carries out this rank's row of `plan` on `tensor`, in place: contiguous, of any shape, taken as flat.

    `op` is what a `recv_reduce` does: `sum`, `mean` (a sum, divided at the end by the group's size) or `max`. The
    tensor is cut at multiples of `unit` elements (a row of a matrix, for instance).

    Raises:
        ValueError: the tensor is not contiguous, the op is unknown or does not fit the dtype, or the group has another
            size than the plan or lacks this rank.
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
    group = member(group)
    if plan.ranks != group.size():
        raise ValueError(f"the plan is for {plan.ranks} ranks, the group has {group.size()}")
    row, waits = plan.rows[group.rank()], plan.waits[group.rank()]
    exchanged_bytes = _exchanged_bytes(row, chunks) if plan.ranks == 2 else 0
    with tag(**recorder().names_inside(getattr(group, "axis", group.group_name))):
        _walk(row, waits, chunks, lanes(group, exchanged_bytes), COMBINE[op])
    open_second(group, exchanged_bytes)


def _exchanged_bytes(row: Sequence[Op], chunks: Sequence[Tensor]) -> int:
    """The bytes that this rank of two sends and receives; 0 on a GPU, since only gloo has one connection a pair."""
    if not chunks[0].is_cpu:
        return 0
    return sum(chunks[op.part].nbytes for op in row)


def _walk(row: Sequence[Op], waits: Waits, chunks: Sequence[Tensor], lane: Lanes, combine: Combine) -> None:
    """Issues the steps of `row`; `waits[i]` are the places in the row that step i waits for."""
    works: list[dist.Work | None] = [None] * len(row)
    landed: list[Tensor | None] = [None] * len(row)
    leaving: dict[int, int] = {}  # part -> the place of its latest send

    def finish(place: int) -> None:
        work, arrived = works[place], landed[place]
        if work is None:
            return  # over already, or a chunk of no elements
        work.wait()
        works[place] = landed[place] = None
        if arrived is not None:
            finish(leaving.get(row[place].part, place))  # what is being sent must not change
            combine(chunks[row[place].part], arrived)
            _scratch.give(arrived)

    name = recorder().tags[-1]  # read as each message is issued, so that one serves them all
    for place, op in enumerate(row):
        for before in waits[place]:
            finish(before)
        chunk = chunks[op.part]
        if not chunk.numel():
            continue
        name["kind"], name["part"], name["round"] = op.kind, op.part, op.round
        if op.kind == "recv_reduce":
            chunk = landed[place] = _scratch.take(chunk)
        elif op.kind == "send":
            leaving[op.part] = place
        move = lane.send if op.kind == "send" else lane.recv
        works[place] = move([chunk], op.peer, collective(op.round * len(chunks) + op.part))
    for place in range(len(row)):
        finish(place)
