"""Collectives inside a model: what each does in the forward pass and, as its conjugate, in the backward pass.

Shoeybi et al., "Megatron-LM: training multi-billion parameter language models using model parallelism" (2019),
section 3, names the first pair f and g; Korthikanti et al., "Reducing activation recomputation in large transformer
models" (2022), section 4.2.2, names the second pair, for sequence parallelism, g and g-bar.

A gradient needs a collective where the forward pass has none, and the other way round: if every rank reads the same
tensor, its gradient is the sum of what all ranks say about it; if the tensors of all ranks are added up, the gradient
of each is that of the sum. Each function is named after its forward and then its backward:

| function                    | forward        | backward       | in a block                                       |
|-----------------------------|----------------|----------------|--------------------------------------------------|
| `identity_all_reduce` (f)   | identity       | all-reduce     | before a column-parallel layer                   |
| `all_reduce_identity` (g)   | all-reduce     | identity       | after a row-parallel layer                       |
| `all_gather_reduce_scatter` | all-gather     | reduce-scatter | the same two places, when activations are sharded|
| `reduce_scatter_all_gather` | reduce-scatter | all-gather     | along the sequence                               |
| `split_all_gather`          | own part       | all-gather     | all ranks hold the same: go over to parts        |
| `all_gather_split`          | all-gather     | own part       | every rank goes on in the same way with the whole|

`all_gather_split` is right only if all ranks compute the same from the whole afterwards, because then they all get the
same gradient; if each goes on in its own way, gradients differ and must be added: `all_gather_reduce_scatter`.

With S the bytes of the whole tensor, an all-reduce sends 2 S (n-1)/n bytes per rank, an all-gather or a reduce-scatter
S (n-1)/n; so f with its backward costs what the second pair costs.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives.api import all_gather, all_reduce, reduce_scatter

Group = dist.ProcessGroup | None


def identity_all_reduce(x: Tensor, group: Group = None) -> Tensor:
    """x as it is; its gradient is summed over the group (f)."""
    return _IdentityAllReduce.apply(x, group)


def all_reduce_identity(x: Tensor, group: Group = None) -> Tensor:
    """The sum of x over the group, as a new tensor; the gradient passes unchanged (g)."""
    return _AllReduceIdentity.apply(x, group)


def all_gather_reduce_scatter(x: Tensor, dim: int = 0, group: Group = None, length: int | None = None) -> Tensor:
    """All ranks' x, one after another along `dim`; the gradient is summed over the group and each keeps its part.

    `length` is the length of the result along `dim`, n times that of x by default; give it when it is no multiple of n.
    """
    return _AllGatherReduceScatter.apply(x, dim, group, length)


def reduce_scatter_all_gather(x: Tensor, dim: int = 0, group: Group = None) -> Tensor:
    """This rank's part along `dim` of the sum of x over the group; the gradient's parts are gathered."""
    return _ReduceScatterAllGather.apply(x, dim, group)


def split_all_gather(x: Tensor, dim: int = 0, group: Group = None) -> Tensor:
    """This rank's part of x along `dim`, where all ranks hold the same x; the gradient's parts are gathered."""
    return _SplitAllGather.apply(x, dim, group)


def all_gather_split(x: Tensor, dim: int = 0, group: Group = None, length: int | None = None) -> Tensor:
    """All ranks' x along `dim`; each rank keeps its part of the gradient, which is the same on all.

    `length` is as in `all_gather_reduce_scatter`.
    """
    return _AllGatherSplit.apply(x, dim, group, length)


def _sum(x: Tensor, group: Group) -> Tensor:
    return all_reduce(x.clone(memory_format=torch.contiguous_format), group)


def _gather(x: Tensor, dim: int, group: Group, length: int | None) -> Tensor:
    return all_gather(x.movedim(dim, 0), group, rows=length).movedim(0, dim).contiguous()


def _scatter(x: Tensor, dim: int, group: Group) -> Tensor:
    return reduce_scatter(x.movedim(dim, 0), group).movedim(0, dim).contiguous()


def _part(x: Tensor, dim: int, group: Group) -> Tensor:
    return x.tensor_split(dist.get_world_size(group), dim)[dist.get_rank(group)].clone()


class _IdentityAllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _sum(grads[0], ctx.group), None


class _AllReduceIdentity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


class _AllGatherReduceScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group, length: int | None) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _gather(x, dim, group, length)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _scatter(grads[0], ctx.dim, ctx.group), None, None, None


class _ReduceScatterAllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group) -> Tensor:
        ctx.dim, ctx.group, ctx.length = dim, group, x.shape[dim]
        return _scatter(x, dim, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _gather(grads[0], ctx.dim, ctx.group, ctx.length), None, None


class _SplitAllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group) -> Tensor:
        ctx.dim, ctx.group, ctx.length = dim, group, x.shape[dim]
        return _part(x, dim, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _gather(grads[0], ctx.dim, ctx.group, ctx.length), None, None


class _AllGatherSplit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group, length: int | None) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _gather(x, dim, group, length)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _part(grads[0], ctx.dim, ctx.group), None, None, None
