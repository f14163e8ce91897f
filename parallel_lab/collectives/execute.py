"""The one executor: carries out any collective plan on a tensor, with sends and receives of torch.distributed.

A rank walks its row in order. Before a step it waits for what the step needs on this rank; what it needs on other ranks
comes with the messages. A `recv` lands in its chunk directly; a `recv_reduce` lands in a scratch buffer and is added
when the first step that needs it comes up. Nothing else waits until the end of the row, so a piece is added while the
next is on the wire.

The group's own `send` and `recv` are called, which is what `dist.isend` and `dist.irecv` do after their checks; the
plan has been checked already, and ranks of a plan are ranks of the group. The loop is kept lean, since at 4 MiB and
4 ranks a microsecond of Python per step is half a percent of the time.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives.chunks import ChunkPlan
from parallel_lab.collectives.lanes import Move, lanes
from parallel_lab.plan import Op
from parallel_lab.runtime.group import member
from parallel_lab.runtime.tags import collective
from parallel_lab.trace import recorder, tag

KEPT_BYTES = 32 * 2**20  # scratch that is kept between calls, per thread

Combine = Callable[[Tensor, Tensor], object]
COMBINE: dict[str, Combine] = {
    "sum": Tensor.add_,
    "mean": Tensor.add_,
    "max": lambda held, arrived: torch.maximum(held, arrived, out=held),
}


class Scratch(threading.local):
    """Buffers of this thread for what arrives and is to be added; `take` one, and `give` it back.

    They are kept between calls: a CPU allocator hands large blocks back to the system when they are freed, and the next
    call pays a page fault for each 4 KiB again, a tenth of an all-reduce of 4 MiB. CUDA's allocator keeps its own.
    """

    def __init__(self) -> None:
        self.free: defaultdict[tuple[int, torch.dtype], list[Tensor]] = defaultdict(list)
        self.kept_bytes = 0

    def take(self, like: Tensor) -> Tensor:
        """An uninitialized tensor with the size, dtype and device of the flat tensor `like`."""
        fitting = self.free[like.numel(), like.dtype] if like.is_cpu else None
        if not fitting:
            return torch.empty_like(like)
        self.kept_bytes -= like.nbytes
        return fitting.pop()

    def give(self, tensor: Tensor) -> None:
        """Keeps what `take` handed out; when there is too much of it, the rest is let go first."""
        if not tensor.is_cpu or tensor.nbytes > KEPT_BYTES:
            return
        if self.kept_bytes + tensor.nbytes > KEPT_BYTES:
            self.free.clear()
            self.kept_bytes = 0
        self.free[tensor.numel(), tensor.dtype].append(tensor)
        self.kept_bytes += tensor.nbytes


_scratch = Scratch()


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
    # On a GPU no second lane: only gloo has one connection per pair.
    exchanged_bytes = sum(chunks[op.part].nbytes for op in row) if plan.ranks == 2 and chunks[0].is_cpu else 0
    names = recorder().names_inside(getattr(group, "axis", group.group_name))
    with lanes(group, exchanged_bytes) as (send, receive), tag(**names):
        _walk(row, waits, chunks, send, receive, COMBINE[op])


def _walk(
    row: Sequence[Op],
    waits: Sequence[Sequence[int]],
    chunks: Sequence[Tensor],
    send: Move,
    receive: Move,
    combine: Combine,
) -> None:
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
        move = send if op.kind == "send" else receive
        works[place] = move([chunk], op.peer, collective(op.round * len(chunks) + op.part))
    for place in range(len(row)):
        finish(place)
