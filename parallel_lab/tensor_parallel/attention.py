"""Attention and feed-forward cut by heads and by hidden columns: two column linears or three, and one row linear.

Shoeybi et al. 2019, "Megatron-LM", section 3, figure 3: a head needs nothing of another head until the output layer, so
rank r of n has the a/n heads from r a/n on, with their columns of query, key and value and their rows of the output
layer. The feed-forward part is the same with hidden columns for heads; SwiGLU's gate and up are cut alike.
In grouped-query attention (Ainslie et al. 2023, "GQA", section 2.2) a_kv < a key-value heads serve the a query heads.
Up to a_kv ranks share these. With more, n = copies · a_kv, each key-value head is held by several neighbors, whose
query heads are among those that it serves. Each of them has a part of its gradient, so the gradients of the copies must
be summed.

    sharded                query, key, value, out, gate, up and down, and what these return
    replicated             the input and the output of each part, b s h numbers; key and value, copied where n > a_kv
    sent per rank          2 (n-1)/n S forward and 2 (n-1)/n S backward, for each of the two parts; copies send once a
                           step 2 (copies-1)/copies of the gradients of key and value

A part is entered once, not once for query, key and value each, so that their three gradients travel as one.
"""

from typing import Any

import torch.distributed as dist
from torch import nn

from parallel_lab.model.experts import MixtureOfExperts
from parallel_lab.model.gpt import Attention
from parallel_lab.tensor_parallel.linear import ColumnLinear, Crossing, RowLinear, divided, entered_by


def check_heads(attention: Attention, n: int) -> int:
    """How many ranks hold the same key-value head; 1 if each has its own.

    Raises:
        ValueError: n does not divide the heads, or neither of n and the key-value heads divides the other.
    """
    heads, kv_heads = (each.out_features // attention.head_width for each in (attention.query, attention.key))
    divided("heads", heads, n)
    if kv_heads % n and n % kv_heads:
        why = f"{kv_heads} key-value heads neither divide by {n} ranks nor the ranks by them"
        raise ValueError(f"{why}: nothing was cut. Choose a divisor or a multiple of {kv_heads}")
    return max(1, n // kv_heads)


def cut_attention(attention: Attention, group: dist.ProcessGroup, enter: Crossing, leave: Crossing) -> None:
    """Leaves this rank's heads, in place; attention counts the heads that its linears return.

    Raises:
        ValueError: as `check_heads`.
    """
    copies = check_heads(attention, group.size())
    for name, each in (("query", 1), ("key", copies), ("value", copies)):
        column = ColumnLinear(getattr(attention, name), copies=each, enter=None, group=group)
        setattr(attention, name, column)
    attention.out = RowLinear(attention.out, leave=leave, group=group)  # pyright: ignore[reportAttributeAccessIssue]
    entered_by(attention, enter, group)


def cut_feed_forward(part: nn.Module, group: dist.ProcessGroup, enter: Crossing, leave: Crossing) -> None:
    """Leaves this rank's hidden columns, in place; of a mixture of experts those of each, and the router as it is.

    Raises:
        ValueError: the hidden columns do not divide.
    """
    for each in feed_forwards(part):
        for name in ("up", "gate"):
            if (linear := getattr(each, name, None)) is not None:
                setattr(each, name, ColumnLinear(linear, enter=None, group=group))
        each.down = RowLinear(each.down, leave=leave, group=group)
        entered_by(each, enter, group)


def feed_forwards(part: nn.Module) -> list[Any]:
    """The part itself, or those of its experts."""
    return list(part.experts.children()) if isinstance(part, MixtureOfExperts) else [part]
