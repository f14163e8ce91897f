"""Sequence parallelism: between the cut parts, where all ranks would compute the same, each has its part of the tokens.

Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models", section 4.2. An all-reduce is
a reduce-scatter and an all-gather. Tensor parallelism does both at once and then has n copies of norms, dropouts and
residuals; here rank r keeps the r-th part of the sequence in between. So a cut part is entered through an all-gather
(backward: a reduce-scatter) and left through a reduce-scatter (backward: an all-gather), the paper's g and g-bar.

    sharded                beside the weights, every activation: 1/n of the tokens between the parts
    replicated             norms, the biases of row linears, positions
    sent per step and rank 4 (n-1)/n S a block and direction, as tensor parallelism; the embedding sends (n-1)/n S each
                           way; once a step 2 (n-1)/n of the replicated parameters' gradients
    held per rank          activations / n, but for the gathered inputs of the cut parts

What is replicated sees only this rank's tokens, so its gradient is a part: `sum_replicated_gradients` adds the parts
up, once a step, and the gradients of copied key-value heads with them. It is a sum and no mean. Those are the norms and
the biases of row linears. Positions are not among them: they are added before the sum over ranks, on one rank, and the
gradient of what was summed is whole on all.

A sequence that n does not divide is padded with zeros at the end, which causal attention does not look at.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.collectives import autograd
from parallel_lab.collectives.flat import end_to_end, put_back
from parallel_lab.collectives.passes import named
from parallel_lab.tensor_parallel.linear import Group
from parallel_lab.tensor_parallel.vocab import VocabEmbedding

SEQUENCE = 1  # the dim of (batch, seq, width) that is sharded


def gathered(x: Tensor, group: Group) -> Tensor:
    """Enters a cut part: (batch, seq/n, width) to (batch, seq, width); of the gradients' sum each rank has its part."""
    with named(group):
        return autograd.all_gather_reduce_scatter(x, SEQUENCE, group, built_in=True)


def scattered(x: Tensor, group: Group) -> Tensor:
    """Leaves it: (batch, seq, width) to this rank's (batch, seq/n, width) of the sum; the gradient is gathered."""
    with named(group):
        return autograd.reduce_scatter_all_gather(x, SEQUENCE, group, built_in=True)


class _Once(torch.autograd.Function):
    """What one rank alone adds to a sum over ranks whose gradient is whole on all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int) -> Tensor:
        return torch.zeros_like(x) if rank else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


class ShardedEmbedding(nn.Module):
    """`model.Embedding` with a cut table: tokens (batch, seq) to this rank's part (batch, ceil(seq/n), width)."""

    def __init__(self, embedding: Any, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.group, self.longest, self.positions = group, embedding.longest, embedding.positions
        self.tokens = VocabEmbedding(embedding.tokens, leave=scattered, group=group)
        self.dropout = ShardedDropout(embedding.dropout.p, group)

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """`positions` (seq,) as in `model.Embedding`; tokens are the whole sequence, the same on every rank.

        Raises:
            ValueError: the sequence is longer than the model's, or `positions` are given and n does not divide it.
        """
        seq, n = tokens.shape[-1], self.group.size()
        if seq > self.longest:
            raise ValueError(f"a sequence of {seq} tokens, where this model has positions for {self.longest}")
        if positions is not None and seq % n:
            raise ValueError(f"{n} ranks share {seq} tokens with positions of their own: pad them to a multiple of {n}")
        x = self.tokens.partial(tokens)  # (batch, seq, width), to be summed
        if self.positions is not None:
            where = self.positions.weight[:seq] if positions is None else self.positions(positions)
            x = x + _Once.apply(where, self.group.rank())
        return self.dropout(self.tokens.leave(F.pad(x, (0, 0, 0, -seq % n)), self.group))


class ShardedDropout(nn.Module):
    """Dropout of this rank's tokens: another mask on each rank, from one number that all ranks draw alike.

    The number comes from the generator of the CPU, which `torch.utils.checkpoint` sets back when it computes again, so
    the mask is then the same. All ranks stay in step, so that what must agree later still does.
    """

    def __init__(self, p: float, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.p, self.group = p, group

    def forward(self, x: Tensor) -> Tensor:
        """Some elements zero, the others scaled up, in training."""
        if not self.training or self.p == 0:
            return x
        drawn = int(torch.randint(2**62, ()))
        generator = torch.Generator(x.device).manual_seed(drawn ^ self.group.rank())
        keep = torch.rand(x.shape, device=x.device, generator=generator) >= self.p
        return x * keep / (1 - self.p)


def mark_partial(module: nn.Module, group: dist.ProcessGroup) -> None:
    """Has `sum_replicated_gradients` sum the gradients of the module's own parameters that are not cut."""
    module.partial_over = group  # pyright: ignore[reportArgumentType] (no parameter, a note)


def partial_parameters(model: nn.Module) -> Iterator[tuple[dist.ProcessGroup, int, nn.Parameter]]:
    """The parameters whose gradients are parts: over which group they add up, and over how many neighbors in it."""
    for module in model.modules():
        cut, group = getattr(module, "cuts", {}), getattr(module, "partial_over", None)
        for name, p in module.named_parameters(recurse=False):
            if name in cut and cut[name].copies > 1:
                yield module.group, cut[name].copies, p  # pyright: ignore[reportReturnType] (a cut module has it)
            elif name not in cut and group is not None:
                yield group, group.size(), p


@torch.no_grad()
def sum_replicated_gradients(model: nn.Module, group: Group = None) -> None:
    """Adds up the gradients of which each rank has a part: under sequence parallelism, and of copied key-value heads.

    Call it once a step, on all ranks, after the last backward pass and before gradients are clipped or used. It does
    nothing where there is nothing to add up. `group` restricts it to what adds up over that group.
    """
    parts: dict[tuple, list[Tensor]] = defaultdict(list)
    for over, ranks, p in partial_parameters(model):
        if p.grad is not None and group in (None, over):
            parts[over, ranks, p.grad.dtype].append(p.grad)
    for (over, ranks, _), grads in parts.items():
        flat = end_to_end(grads)
        if ranks == over.size():
            with named(over, "step"):
                dist.all_reduce(flat, group=over)
        else:
            flat = _sum_of_copies(flat, ranks, over)
        put_back(flat, grads)


def _sum_of_copies(flat: Tensor, copies: int, group: dist.ProcessGroup) -> Tensor:
    """The sum of `flat` over this rank's `copies` neighbors: each sums a part of it and hands that to the others.

    Others of the group have neighbors of their own, so that no group of some of its ranks is needed.
    """
    first, length = group.rank() // copies * copies, -(-flat.numel() // copies)
    splits = [length if 0 <= rank - first < copies else 0 for rank in range(group.size())]
    given = F.pad(flat, (0, copies * length - flat.numel()))
    taken = torch.empty_like(given)
    with named(group, "step"):
        dist.all_to_all_single(taken, given, splits, splits, group=group)
    mine = taken.view(copies, length).sum(0)
    with named(group, "step"):
        dist.all_to_all_single(taken, mine.repeat(copies), splits, splits, group=group)
    return taken[: flat.numel()]
