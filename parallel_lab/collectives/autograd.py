"""Collectives inside a model: what each does in the forward pass and, as its conjugate, in the backward pass.

Shoeybi et al., "Megatron-LM: training multi-billion parameter language models using model parallelism" (2019),
section 3, names the first pair f and g; Korthikanti et al., "Reducing activation recomputation in large transformer
models" (2022), section 4.2.2, names the second pair, for sequence parallelism, g and g-bar.

A gradient needs a collective where the forward pass has none, and the other way round: if every rank reads the same
tensor, its gradient is the sum of what all ranks say about it; if the tensors of all ranks are added up, the gradient
of each is that of the sum. Each function is named after its forward and then its backward.

With S the bytes of the whole tensor, an all-reduce sends 2 S (n-1)/n bytes per rank, an all-gather or a reduce-scatter
S (n-1)/n; so one of the first pair with its backward costs what one of the second does. Tensor parallelism is built of
these.

With `built_in` the backend's own collectives move the bytes, in parts of equal length: one call each, where a ring of
ours is a row of messages. What a tag names in the forward pass has that name in the backward pass, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives.api import all_gather, all_reduce, reduce_scatter
from parallel_lab.runtime import gather as flat
from parallel_lab.runtime.group import member
from parallel_lab.trace import recorder, tag

Group = dist.ProcessGroup | None
Step = Callable[[Tensor], Tensor]


class _Pair(torch.autograd.Function):
    """`there` in the forward pass, and `back` on the gradient in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Step, back: Step) -> Tensor:
        ctx.back, ctx.names = back, recorder().names
        return there(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        phase = ctx.names.get("phase", "forward").replace("forward", "backward")
        with tag(**(ctx.names and {**ctx.names, "phase": phase})):
            return ctx.back(grads[0]), None, None


def identity_all_reduce(x: Tensor, group: Group = None, *, built_in: bool = False) -> Tensor:
    """Before a column-parallel layer: x as it is; its gradient is summed over the group (Megatron's f)."""
    return _Pair.apply(x, _same, lambda grad: _sum(grad, group, built_in))


def all_reduce_identity(x: Tensor, group: Group = None, *, built_in: bool = False) -> Tensor:
    """After a row-parallel layer: the sum of x over the group, as a new tensor (Megatron's g).

    The gradient passes unchanged.
    """
    return _Pair.apply(x, lambda x: _sum(x, group, built_in), _same)


def all_gather_reduce_scatter(
    x: Tensor, dim: int = 0, group: Group = None, length: int | None = None, *, built_in: bool = False
) -> Tensor:
    """Instead of `identity_all_reduce`, if activations are sharded: all ranks' x along `dim`.

    Of the gradients' sum each keeps its part. `length` is the length of the result along `dim`, n times that of x by
    default; give it when it is no multiple of n.
    """
    back = partial(_scatter, dim=dim, group=group, built_in=built_in)
    return _Pair.apply(x, lambda x: _gather(x, dim, group, length, built_in), back)


def reduce_scatter_all_gather(x: Tensor, dim: int = 0, group: Group = None, *, built_in: bool = False) -> Tensor:
    """Instead of `all_reduce_identity`: this rank's part of the sum of x along `dim`; the gradient's are gathered."""
    length = x.shape[dim]
    back = partial(_gather, dim=dim, group=group, length=length, built_in=built_in)
    return _Pair.apply(x, lambda x: _scatter(x, dim, group, built_in), back)


def split_all_gather(x: Tensor, dim: int = 0, group: Group = None) -> Tensor:
    """This rank's part of x along `dim`, where all ranks hold the same x; the gradient's parts are gathered."""
    length = x.shape[dim]
    return _Pair.apply(x, lambda x: _part(x, dim, group), lambda grad: _gather(grad, dim, group, length))


def all_gather_split(
    x: Tensor, dim: int = 0, group: Group = None, length: int | None = None, *, built_in: bool = False
) -> Tensor:
    """All ranks' x along `dim`, `length` long; each rank keeps its part of the gradient.

    Right only if all ranks compute the same from the whole afterwards, because then they all get the same gradient; if
    each goes on in its own way, gradients differ and must be added: `all_gather_reduce_scatter`.
    """
    there = partial(_gather, dim=dim, group=group, length=length, built_in=built_in)
    return _Pair.apply(x, there, lambda grad: _part(grad, dim, group))


def exchange(x: Tensor, given: list[int], taken: list[int], group: Group = None) -> Tensor:
    """Rows to the ranks that they are for: `given[r]` of x (rows, ...) go to rank r, `taken[r]` of the result are its.

    The gradient goes the way back, `taken[r]` rows to rank r. Ranks with nothing to give or take call it all the same.
    """
    there, back = (partial(_exchange, given=a, taken=b, group=group) for a, b in ((given, taken), (taken, given)))
    return _Pair.apply(x, there, back)


def _same(x: Tensor) -> Tensor:
    return x.view_as(x)


def _sum(x: Tensor, group: Group, built_in: bool) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    if not built_in:
        return all_reduce(total, group)
    dist.all_reduce(total, group=group)
    return total


def _gather(x: Tensor, dim: int, group: Group, length: int | None, built_in: bool = False) -> Tensor:
    if not built_in:
        return all_gather(x.movedim(dim, 0), group, rows=length).movedim(0, dim).contiguous()
    group, dim = member(group), dim % x.dim()
    whole = x.new_empty(group.size(), *x.shape)
    flat.all_gather(whole.view(-1), x.contiguous().view(-1), group).wait()
    return whole.movedim(0, dim).flatten(dim, dim + 1)


def _scatter(x: Tensor, dim: int, group: Group, built_in: bool = False) -> Tensor:
    if not built_in:
        return reduce_scatter(x.movedim(dim, 0), group).movedim(0, dim).contiguous()
    group, dim = member(group), dim % x.dim()
    parts = x.unflatten(dim, (group.size(), -1)).movedim(dim, 0).contiguous()
    mine = torch.empty_like(parts[0])
    flat.reduce_scatter(mine.view(-1), parts.view(-1), group).wait()
    return mine


def _exchange(x: Tensor, given: list[int], taken: list[int], group: Group) -> Tensor:
    arrived = x.new_empty(sum(taken), *x.shape[1:])
    dist.all_to_all_single(arrived, x.contiguous(), taken, given, group=group)
    return arrived


def _part(x: Tensor, dim: int, group: Group) -> Tensor:
    return x.tensor_split(dist.get_world_size(group), dim)[dist.get_rank(group)].clone()
