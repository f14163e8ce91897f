"""Ulysses: an all-to-all gives each rank all tokens of its heads, attention is local, and a second one gives them back.

Jacobs et al. 2023, "DeepSpeed Ulysses: system optimizations for enabling training of extreme long sequence transformer
models" (arXiv 2309.14509), section 3. Heads do not look at each other. So a rank that has all heads of its tokens
trades them for all tokens of its heads, and any attention kernel serves unchanged.

    sharded                outside of attention the sequence, inside it the heads
    replicated             nothing; key-value heads, in copies, where there are fewer of them than ranks
    sent per rank          (n-1)/n of query, key, value and output, forward and again backward
    held per rank          for the backward pass all tokens of a/n query heads, with their key-value heads and output

With a query and a_kv key-value heads of width d, b sequences of s tokens and e bytes a number, that is (n-1)/n (2a +
2a_kv) b (s/n) d e each way; the ring sends n a_kv / (a + a_kv) times as much forward. n must divide a. Where n is a
multiple of a_kv, each key-value head goes to the n/a_kv ranks that have its query heads, as if there were n of them,
and the copies' gradients are summed where they came from.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.context_parallel.shapes import check_shapes
from parallel_lab.context_parallel.zigzag import Group, chunks
from parallel_lab.runtime.group import member
from parallel_lab.trace import recorder, tag

HEADS, TOKENS = 1, 2  # dims of (batch, heads, seq, head_width)


@keyword_only()
def ulysses(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool = True, zigzag: bool = True, group: Group = None
) -> Tensor:
    """Attention of this rank's tokens to those of all ranks; arguments and result as those of `ring_attention`.

    Raises:
        ValueError: shapes do not fit, or heads do not divide over the ranks.
    """
    group = member(group)
    check_shapes(query, key, value, zigzag, group)
    copies, n = check_heads(query.shape[HEADS], key.shape[HEADS], group), group.size()
    key, value = (each.repeat_interleave(copies, HEADS) for each in (key, value))
    mine = torch.cat([each.unflatten(HEADS, (n, -1)) for each in (query, key, value)], 2)  # for each rank its heads
    whole = _Exchange.apply(mine, True, zigzag, group)  # (batch, heads of all three, seq, head_width)
    q, k, v = whole.split([each.shape[HEADS] // n for each in (query, key, value)], HEADS)
    out = scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[HEADS] != k.shape[HEADS])
    return _Exchange.apply(out, False, zigzag, group).flatten(1, 2)


def check_heads(heads: int, kv_heads: int, group: dist.ProcessGroup) -> int:
    """How many ranks need the same key-value head; 1 if each has its own.

    Raises:
        ValueError: n does not divide the heads, or neither of n and the key-value heads divides the other.
    """
    n, rank = group.size(), group.rank()
    if heads % n:
        raise ValueError(
            f"rank {rank}: Ulysses deals heads out, and {heads} heads do not divide by {n} ranks: choose a divisor of"
            f" {heads}, or ring attention, which cuts no heads"
        )
    if kv_heads % n and n % kv_heads:
        raise ValueError(
            f"rank {rank}: {kv_heads} key-value heads neither divide by {n} ranks nor the ranks by them: choose a"
            f" divisor or a multiple of {kv_heads}, or ring attention, which cuts no heads"
        )
    return max(1, n // kv_heads)


class _Exchange(torch.autograd.Function):
    """Tokens for heads or, not `to_heads`, heads for tokens; the gradient takes the way back.

    The one is (batch, n, heads/n, seq/n, head_width), all heads of this rank's tokens by the rank that they are for;
    the other (batch, heads/n, seq, head_width), all tokens of this rank's heads, in order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, to_heads: bool, zigzag: bool, group: dist.ProcessGroup) -> Tensor:
        ctx.how, ctx.names = (to_heads, zigzag, group), recorder().names
        phase = "recompute" if recorder().in_backward() else "forward"
        return _exchanged(x, to_heads, zigzag, group, phase)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        to_heads, zigzag, group = ctx.how
        with tag(**ctx.names):
            return _exchanged(grads[0], not to_heads, zigzag, group, "backward"), None, None, None


def _exchanged(x: Tensor, to_heads: bool, zigzag: bool, group: dist.ProcessGroup, phase: str) -> Tensor:
    n = group.size()
    order = [chunk for rank in range(n) for chunk in chunks(rank, n, zigzag)]  # as ranks have them
    given = x.movedim(1, 0) if to_heads else _in_order(x, order).unflatten(TOKENS, (n, -1)).movedim(TOKENS, 0)
    given = given.contiguous()  # (n, batch, heads/n, seq/n, head_width)
    taken = torch.empty_like(given)
    with tag(phase=phase):
        dist.all_to_all_single(taken, given, group=group)
    if not to_heads:
        return taken.movedim(0, 1)
    places = [order.index(chunk) for chunk in range(len(order))]
    return _in_order(taken.movedim(0, TOKENS).flatten(TOKENS, TOKENS + 1), places)


def _in_order(x: Tensor, order: list[int]) -> Tensor:
    """The chunks of x along the sequence, in another order."""
    parts = x.tensor_split(len(order), TOKENS)
    return torch.cat([parts[chunk] for chunk in order], TOKENS)
