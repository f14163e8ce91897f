"""Rotary positions: a query and a key are turned by their places, so that their product knows only the distance.

Su et al. 2021, "RoFormer: enhanced transformer with rotary position embedding", section 3.2.2 and equation 34. The d
numbers of a head are d / 2 pairs of neighbors. Pair i of a token is turned by the angle place * base^(-2i/d). Two
vectors turned by their places have the product of one turned by the difference of the places. No parameter is learned,
and values are not turned.

Implementations that pair number i with number i + d / 2 compute the same with the rows of the query's and key's weights
in another order. A checkpoint that comes from such a one needs its rows put back.
"""

import torch
from torch import Tensor


def rotate(
    query: Tensor, key: Tensor, positions: Tensor | None = None, base: float = 10_000.0
) -> tuple[Tensor, Tensor]:
    """`query` and `key`, (..., seq, heads, d) each, turned by the places of their tokens.

    `positions` (seq,) are the places; by default 0, 1, 2, ... Where the sequences of a batch stand at different places,
    as in decoding, they are (batch, seq). Query and key may differ in heads. Heads stand inside, so that memory keeps
    the layout of the linears, and the attention's output needs no copy.

    Raises:
        ValueError: there are not as many positions as tokens.
    """
    seq = query.shape[-3]
    if positions is None:
        positions = torch.arange(seq, device=query.device)
    if positions.shape not in ((seq,), (*query.shape[:-3], seq)):
        raise ValueError(f"positions of shape {tuple(positions.shape)} for a sequence of {seq} tokens")
    # In float64: at place 100,000 an angle in float32 is off by thousandths, and one in bfloat16 by many turns.
    pairs = torch.arange(0, query.shape[-1], 2, dtype=torch.float64, device=query.device)
    angles = positions.double()[..., None, None] * base ** (-pairs / query.shape[-1])  # (..., seq, 1, d / 2)
    cos, sin = angles.cos().to(query.dtype), angles.sin().to(query.dtype)
    return _turn(query, cos, sin), _turn(key, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)  # (..., seq, heads, d / 2) each
    return torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)
