"""Softmax in parts: attention to one block of keys, and the merge of what several blocks gave, in any order.

Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", section 3; Dao et al. 2022, "FlashAttention",
section 3.1. A query's attention is a mean of values with weights exp(score). Of each block of keys it is enough to know
two things: the mean over the block, and the logarithm of the sum of its weights (log-sum-exp, lse). Two blocks merge
into one: the new lse is log(exp(lse_1) + exp(lse_2)), and the new mean is the mean of both means, the second with
weight exp(lse_2 - lse) = sigmoid(lse_2 - lse_1).

Three things go wrong where this is written down carelessly. exp of a score above 88.8 is infinite in float32: so scores
meet exp only less their lse, and the merge uses sigmoid. A row of a block that sees no key has lse = -inf, and
-inf - (-inf) is NaN: such a row has mean 0 and weight 0. And a mean that is rounded to 16 bits after each block loses
more with each: sums are kept in float32, or in float64 where the input is.
"""

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums over numbers of `dtype` are kept in: float32, or float64."""
    return torch.promote_types(dtype, torch.float32)


class Merged:
    """The attention of some queries to all blocks that were added so far.

    Attributes:
        out: the mean of the values, (batch, heads, seq, head_width), in float32 or wider; None before the first block.
        lse: the log-sum-exp of the scores, (batch, heads, seq), likewise.
    """

    def __init__(self) -> None:
        self.out: Tensor | None = None
        self.lse: Tensor | None = None

    def both(self) -> tuple[Tensor, Tensor]:
        """The mean over all blocks, and its log-sum-exp.

        Raises:
            ValueError: no block was added.
        """
        if self.out is None or self.lse is None:
            raise ValueError("no block was added: there is nothing to take a mean of")
        return self.out, self.lse

    def add(self, out: Tensor, lse: Tensor, rows: slice = slice(None)) -> None:
        """Adds a block that the queries `rows` see; the first block is of all queries. A row without keys has -inf."""
        if self.out is None or self.lse is None:
            self.out, self.lse = out.to(wide(out.dtype)), lse.to(wide(lse.dtype))
            return
        held, mean = self.lse[..., rows], self.out[..., rows, :]
        beyond = (lse - held).masked_fill(lse == -torch.inf, -torch.inf)  # no NaN where both are -inf
        mean.lerp_(out.to(mean.dtype), beyond.sigmoid().unsqueeze(-1))
        self.lse[..., rows] = torch.logaddexp(held, lse)


def attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean of the values and log-sum-exp of the scores, by the plain formula, in float32 or wider.

    Args:
        query: (batch, heads, queries, head_width).
        key: (batch, kv_heads, keys, head_width), each head for `heads / kv_heads` neighboring query heads.
        value: as `key`.
        visible: (queries, keys), true where a query sees a key; by default everywhere. A row may see none.
    """
    q, k, v = _grouped(query, key, value)
    lse = _scores(q, k, visible).logsumexp(-1, keepdim=True)
    out = _weights(q, k, lse, visible) @ v
    return out.flatten(1, 2), lse.squeeze(-1).flatten(1, 2)


def attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, visible: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value through this block, in float32 or wider.

    `out` and `lse` are those of *all* blocks: weights are computed anew from the scores, and exp(score - lse) is the
    weight among all keys. So the gradients of blocks just add up (Dao et al. 2022, appendix B.2).
    """
    q, k, v = _grouped(query, key, value)
    grad, out = (each.to(q.dtype).unflatten(1, q.shape[1:3]) for each in (grad, out))
    weights = _weights(q, k, lse.unflatten(1, q.shape[1:3]).unsqueeze(-1), visible)
    of_scores = weights * (grad @ v.mT - (grad * out).sum(-1, keepdim=True)) / query.shape[-1] ** 0.5
    return (of_scores @ k).flatten(1, 2), (of_scores.mT @ q).sum(2), (weights.mT @ grad).sum(2)


def _grouped(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query (batch, kv_heads, group, queries, head_width), key and value (batch, kv_heads, 1, keys, head_width)."""
    dtype = wide(query.dtype)
    return (
        query.to(dtype).unflatten(1, (key.shape[1], -1)),
        key.to(dtype).unsqueeze(2),
        value.to(dtype).unsqueeze(2),
    )


def _scores(q: Tensor, k: Tensor, visible: Tensor | None) -> Tensor:
    scores = q @ k.mT / q.shape[-1] ** 0.5  # (batch, kv_heads, group, queries, keys)
    return scores if visible is None else scores.masked_fill(~visible, -torch.inf)


def _weights(q: Tensor, k: Tensor, lse: Tensor, visible: Tensor | None) -> Tensor:
    """exp(score - lse); 0, and not exp(-inf + inf), in a row that sees nothing."""
    return (_scores(q, k, visible) - lse.masked_fill(lse == -torch.inf, 0)).exp()
