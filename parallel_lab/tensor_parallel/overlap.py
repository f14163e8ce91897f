"""Products that hide their collective: each arrived part is multiplied while the next one travels round a ring.

Wang et al. 2023, "Overlap communication with dependent computation via decomposition in large deep learning models"
(ASPLOS 2023, pages 93-106), which decomposes the all-gather and the reduce-scatter. PyTorch has it as async tensor
parallelism, Transformer Engine as overlap of tensor-parallel communication with GEMMs.

With sequence parallelism the input of a column-parallel layer is gathered, and the output of a row-parallel layer
reduce-scattered, along the sequence. Neither has to be whole. The product of a part of the sequence needs this part
alone, so rank r multiplies its own part first, then that of rank r-1, which has come meanwhile, and so on. And a
partial sum can be computed just before it is added to what arrives and sent on.

    sharded                the sequence of x (gather) or of y (reduce-scatter); the weight, by columns or rows
    replicated             nothing
    sent per step and rank (n-1)/n of x forward and as much backward, as the plain pair; in n-1 messages each
    held per rank          the gathered x, kept for the backward pass; a part and a sum under way

`seconds` says when it pays, under a model: n small products instead of a large one, and messages that cost
computing nothing. `all_gather_plan` and `reduce_scatter_plan` are what a run records and the simulator times.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from parallel_lab.runtime.group import member
from parallel_lab.tensor_parallel.overlap_plan import all_gather_plan, reduce_scatter_plan, seconds
from parallel_lab.trace import recorder, span, tag

__all__ = ["all_gather_linear", "all_gather_plan", "linear_reduce_scatter", "reduce_scatter_plan", "seconds"]

Group = dist.ProcessGroup | None
Names = dict[str, Any]  # of spans and messages: mb and phase


def all_gather_linear(
    x: Tensor, weight: Tensor, *, dim: int = 0, length: int | None = None, group: Group = None
) -> Tensor:
    """`linear(gathered x, weight)`, where ranks hold parts of x along `dim`; its gradient is summed and cut again.

    Args:
        x: this rank's part, (..., width); rank r has the rows of `tensor_split(n, dim)[r]`.
        weight: this rank's columns of the layer, (out / n, width) as `nn.Linear` keeps them.
        dim: along which x is cut; not the last.
        length: that of the whole x along `dim`; n times that of the part by default.
        group: whose ranks share the layer.

    Returns:
        (..., out / n), whole along `dim`. Add a bias to it.

    Raises:
        ValueError: x is no part of such a whole, or `dim` is the last.
    """
    group = member(group)
    length = x.shape[dim] * group.size() if length is None else length
    lengths = _lengths(x, weight, dim, length, group)
    if lengths[group.rank()] != x.shape[dim]:
        raise ValueError(
            f"rank {group.rank()} of {group.size()} has {x.shape[dim]} of {length} along dim {dim}; its share is"
            f" {lengths[group.rank()]}, as tensor_split cuts. Give the length of the whole, or pad it"
        )
    return _GatherLinear.apply(x, weight, dim, lengths, group)


def linear_reduce_scatter(x: Tensor, weight: Tensor, *, dim: int = 0, group: Group = None) -> Tensor:
    """This rank's part along `dim` of the sum over ranks of `linear(x, weight)`; the gradient's parts are gathered.

    Args:
        x: whole along `dim`, (..., width / n): the part of the features that this rank computed.
        weight: this rank's rows of the layer, (out, width / n) as `nn.Linear` keeps them.
        dim: along which the sum is cut, as `tensor_split` does; not the last.
        group: whose ranks share the layer.

    Returns:
        (..., out), this rank's part. Add a bias to it; its gradient is then that of the part alone.

    Raises:
        ValueError: `dim` is the last.
    """
    group = member(group)
    return _LinearScatter.apply(x, weight, dim, _lengths(x, weight, dim, x.shape[dim], group), group)


class _GatherLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dim: int, lengths: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.cut, ctx.names = (dim, lengths, group), recorder().names
        whole = x.new_empty(_shape(x, dim, sum(lengths)))
        y = x.new_empty((*whole.shape[:-1], len(weight)))
        for part, arrived in _gathered(x, dim, lengths, group, _named(group, "forward")):
            _at(whole, dim, lengths, part).copy_(arrived)
            _at(y, dim, lengths, part).copy_(linear(arrived, weight))
        ctx.save_for_backward(whole, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        whole, weight = ctx.saved_tensors
        dim, lengths, group = ctx.cut
        of_weight = torch.zeros_like(weight)

        def part_of_x(part: int) -> Tensor:
            grad = _at(grads[0], dim, lengths, part)
            of_weight.add_(_outer(grad, _at(whole, dim, lengths, part)))
            return grad @ weight

        return (
            _scattered(part_of_x, dim, lengths, group, _named(group, "backward", ctx.names)),
            of_weight,
            None,
            None,
            None,
        )


class _LinearScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dim: int, lengths: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.cut, ctx.names = (dim, lengths, group), recorder().names

        def part_of_y(part: int) -> Tensor:
            return linear(_at(x, dim, lengths, part), weight)

        return _scattered(part_of_y, dim, lengths, group, _named(group, "forward"))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        dim, lengths, group = ctx.cut
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        names = _named(group, "backward", ctx.names)
        for part, arrived in _gathered(grads[0], dim, lengths, group, names):
            _at(of_x, dim, lengths, part).copy_(arrived @ weight)
            of_weight.add_(_outer(arrived, _at(x, dim, lengths, part)))
        return of_x, of_weight, None, None, None


def _gathered(
    mine: Tensor, dim: int, lengths: list[int], group: dist.ProcessGroup, names: Names
) -> Iterator[tuple[int, Tensor]]:
    """The parts of all ranks as they arrive, this rank's first: (whose, the part). The next one travels meanwhile."""
    n, held = group.size(), mine.contiguous()
    for turn in range(n):
        part = (group.rank() - turn) % n
        coming, works = held, []
        if turn < n - 1:
            coming = mine.new_empty(_shape(mine, dim, lengths[part - 1]))
            works = _pass_on(held, part, coming, "recv", turn, group, names)
        with span("product", part=part, **names):
            yield part, held  # the caller multiplies here
        for work in works:
            work.wait()
        held = coming


def _scattered(
    product: Callable[[int], Tensor], dim: int, lengths: list[int], group: dist.ProcessGroup, names: Names
) -> Tensor:
    """This rank's part of the sum of all ranks' products. While one sum travels, the next product is computed."""
    n, held = group.size(), torch.empty(0)
    for turn in range(n):
        part = (group.rank() - 1 - turn) % n
        coming, works = held, []
        if turn:
            coming = held.new_empty(_shape(held, dim, lengths[part]))
            works = _pass_on(held, (part + 1) % n, coming, "recv_reduce", turn - 1, group, names)
        with span("product", part=part, **names):
            mine = product(part)
        for work in works:
            work.wait()
        held = coming.add_(mine) if turn else mine
    return held


def _pass_on(
    held: Tensor, part: int, coming: Tensor, kind: str, turn: int, group: dist.ProcessGroup, names: Names
) -> list[dist.Work]:
    """Starts to send `part` to the right and to receive the part before it from the left; empty ones are not sent.

    Every second rank receives first: NCCL carries out what two ranks have for each other one after another.
    """
    n, rank, works = group.size(), group.rank(), []
    for sends in (False, True) if rank % 2 else (True, False):
        if sends and held.numel():
            with tag(part=part, round=turn, **names):
                works.append(dist.isend(held, group=group, group_dst=(rank + 1) % n))
        elif not sends and coming.numel():
            with tag(part=(part - 1) % n, kind=kind, round=turn, **names):
                works.append(dist.irecv(coming, group=group, group_src=(rank - 1) % n))
    return [work for work in works if work is not None]


def _named(group: dist.ProcessGroup, phase: str, outer: Mapping[str, Any] | None = None) -> Names:
    """What the trace calls the messages and products of one pass; of the same names, the second gets a number."""
    with tag(**{**recorder().names, **(outer or {}), "phase": phase}):
        inside = recorder().names_inside(getattr(group, "axis", group.group_name))
        return {"mb": recorder().names.get("mb", 0), "phase": phase, **inside}


def _lengths(x: Tensor, weight: Tensor, dim: int, length: int, group: dist.ProcessGroup) -> list[int]:
    """The lengths along `dim` of the parts of all ranks, near-equal as `tensor_split` cuts; refuses what cannot go."""
    if x.dim() < 2 or not 0 <= dim < x.dim() - 1 or x.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"rank {group.rank()}: x of {tuple(x.shape)}, weight of {tuple(weight.shape)}, dim={dim}: expected x with"
            f" {weight.shape[-1]} features last, and one of its other dims, from 0 to {x.dim() - 2}"
        )
    n = group.size()
    return [length // n + (rank < length % n) for rank in range(n)]


def _at(whole: Tensor, dim: int, lengths: list[int], part: int) -> Tensor:
    """The part of rank `part` in the whole, as a view."""
    return whole.narrow(dim, sum(lengths[:part]), lengths[part])


def _shape(like: Tensor, dim: int, length: int) -> list[int]:
    """The shape of `like` with another length along `dim`."""
    return [*like.shape[:dim], length, *like.shape[dim + 1 :]]


def _outer(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of a weight (out, in), from those of outputs (..., out) and the inputs (..., in)."""
    return grad.flatten(0, -2).T @ x.flatten(0, -2)
