"""Ring attention: queries stay, keys and values go round, and each rank merges what it has seen so far.

Liu, Zaharia and Abbeel 2023, "Ring attention with blockwise transformers for near-infinite context" (arXiv 2310.01889),
section 3. The sequence is cut over n ranks. In n turns a rank attends to the shard of keys and values that it holds,
while that shard already travels to its right neighbor and the next one comes from the left; `softmax.Merged` makes one
softmax of the n parts. Backward the shards go round once more, and with each the sum of its gradients: it starts at the
owner's neighbor, every rank adds its part, and the owner adds its own last, while that sum is on its way home.

    sharded                the sequence: queries, keys, values, output, log-sum-exp, gradients
    replicated             nothing here; in a model all parameters
    sent per rank          forward (n-1) S_KV; backward as much, and as much of gradients, float32 or wider
    held per rank          own query, key, value, output, log-sum-exp, kept for backward; beyond these 2 S_KV, and
                           in the backward pass two shards of gradients, float32 or wider

S_KV is the bytes of a shard of keys and values: 2 b (s/n) a_kv d e, with b sequences of s tokens, a_kv heads of width
d, e bytes a number. An all-gather sends the same, and holds n S_KV. In a model the messages of each layer have its
phase.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.context_parallel.kernels import attend, attend_backward
from parallel_lab.context_parallel.shapes import check_shapes
from parallel_lab.context_parallel.softmax import Merged, wide
from parallel_lab.context_parallel.zigzag import Block, Group, block
from parallel_lab.runtime.group import member
from parallel_lab.trace import recorder, span, tag

Names = dict[str, Any]  # of spans and messages: mb and phase


@keyword_only()
def ring_attention(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool = True, zigzag: bool = True, group: Group = None
) -> Tensor:
    """Attention of this rank's tokens to those of all ranks: (batch, heads, seq/n, head_width), as `query`.

    Args:
        query: (batch, heads, seq/n, head_width), of the tokens that `shard_sequence` gives this rank.
        key: (batch, kv_heads, seq/n, head_width), each head for `heads / kv_heads` neighboring query heads.
        value: as `key`.
        causal: a token sees itself and those before it.
        zigzag: the tokens are an early and a late chunk, not neighbors; say the same to `shard_sequence`.
        group: whose ranks share the sequence; by default all.

    Raises:
        ValueError: shapes do not fit, or there is no half of the tokens for a zig-zag.
    """
    group = member(group)
    check_shapes(query, key, value, zigzag and causal, group)
    seen = partial(block, group.rank(), length=query.shape[2], causal=causal, zigzag=zigzag)
    return _RingAttention.apply(query, key, value, seen, group)


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, seen: Callable[..., Block | None], group: dist.ProcessGroup
    ) -> Tensor:
        rank, n, names = group.rank(), group.size(), _named(group, "forward")
        shards, merged = _Ring(torch.stack((key, value)), group), Merged()
        for turn in range(n):  # this rank's own shard first
            owner = (rank - turn) % n
            if turn < n - 1:
                shards.pass_on(owner, turn, names)  # while this rank computes with it
            if part := seen(owner):
                with span("attention", part=owner, **names):
                    k, v = shards.held[..., part.keys, :]
                    merged.add(*attend(query[..., part.rows, :], k, v, part.causal), part.rows)
            shards.arrive()
        mean, lse = merged.both()
        out = mean.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.seen, ctx.group, ctx.names = seen, group, recorder().names
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, out, lse = ctx.saved_tensors
        rank, n, names = ctx.group.rank(), ctx.group.size(), _named(ctx.group, "backward", ctx.names)
        grad, of_query = grads[0].contiguous(), torch.zeros_like(query, dtype=wide(query.dtype))
        shards = _Ring(torch.stack((key, value)), ctx.group)
        sums = _Ring(torch.zeros_like(shards.held, dtype=of_query.dtype), ctx.group, "recv_reduce")
        for turn in range(n + 1):  # turn 0 sends only; this rank's own shard is last, while its sum is on its way home
            owner = (rank - turn) % n
            if turn < n - 1:
                shards.pass_on(owner, turn, names)
            if turn:
                part, made = ctx.seen(owner), None
                if part:
                    k, v = shards.held if turn < n else (key, value)
                    with span("attention", part=owner, **names):
                        made = _of_block(part, k, v, grad, query, out, lse)
                    of_query[..., part.rows, :] += made[0]
                sums.arrive()  # what the ranks said that this shard came by before
                if made:
                    for held, more in zip(sums.held, made[1:], strict=True):
                        held[..., part.keys, :] += more
                if turn < n:
                    sums.pass_on(owner, turn, names | {"phase": names["phase"] + "/sum"})
            shards.arrive()
        return of_query.to(query.dtype), *sums.held.to(key.dtype), None, None


def _of_block(
    part: Block, key: Tensor, value: Tensor, grad: Tensor, query: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of these rows of the query and of these keys and values, as far as this block makes them."""
    of_out, q, o = (each[..., part.rows, :] for each in (grad, query, out))
    k, v = (each[..., part.keys, :] for each in (key, value))
    return attend_backward(of_out, q, k, v, o, lse[..., part.rows], part.causal)


class _Ring:
    """What goes round: a shard is held, to be read and sent on, while the next one arrives in a second buffer.

    Of a sum, `kind` is what the trace calls its receives.
    """

    def __init__(self, mine: Tensor, group: dist.ProcessGroup, kind: str = "recv") -> None:
        self.held, self.group, self.kind = mine, group, kind
        self.coming = torch.empty_like(mine) if group.size() > 1 else mine
        self.works: list[dist.Work | None] = []

    def pass_on(self, owner: int, turn: int, names: Names) -> None:
        """Starts to send what is held, `owner`'s, to the right, and to receive from the left.

        Every second rank receives first: NCCL carries out what two ranks have for each other one after another.
        """
        rank, n = self.group.rank(), self.group.size()
        for sends in (False, True) if rank % 2 else (True, False):
            if sends:
                with tag(part=owner, round=turn, **names):
                    self.works.append(dist.isend(self.held, group=self.group, group_dst=(rank + 1) % n))
            else:
                with tag(part=(owner - 1) % n, kind=self.kind, round=turn, **names):
                    self.works.append(dist.irecv(self.coming, group=self.group, group_src=(rank - 1) % n))

    def arrive(self) -> None:
        """Waits for what was begun, if anything was; then the new shard is held, and the old one's buffer is free."""
        if not self.works:
            return
        for work in self.works:
            if work is not None:
                work.wait()
        self.works, self.held, self.coming = [], self.coming, self.held


def _named(group: dist.ProcessGroup, phase: str, outer: Mapping[str, Any] | None = None) -> Names:
    """What the trace calls the messages and blocks of one pass; of the same names, the second gets a number.

    What activation recomputation repeats has the phase `recompute`.
    """
    if phase == "forward" and recorder().in_backward():
        phase = "recompute"
    with tag(**{**recorder().names, **(outer or {}), "phase": phase}):
        inside = recorder().names_inside(getattr(group, "axis", group.group_name))
        return {"mb": recorder().names.get("mb", 0), "phase": phase, **inside}
