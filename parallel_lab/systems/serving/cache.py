"""The cache of keys and values: what a token's attention needs of all tokens before it, kept instead of computed again.

Pope et al. 2023, "Efficiently scaling Transformer inference", section 2. A decoder reads one token at a time. The keys
and values of earlier tokens do not change, because a token sees only what stands before it. So each is computed once
and kept. The price is memory: 2 L h_kv e bytes per token of each sequence (L layers, h_kv the width of all
key-value heads, e bytes a number), which grows with the batch and the context and is no parameter.

A slot has room for one sequence of `longest` tokens, reserved as a whole. Kwon et al. 2023, "Efficient memory
management for large language model serving with PagedAttention", hand out small blocks on demand instead
(`formulas.paged_tokens`). On a rank of a model cut by heads the cache has this rank's key-value heads only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Cache:
    """Keys and values of `slots` sequences of at most `longest` tokens each.

    Attributes:
        numbers: (layers, 2, slots, kv_heads, longest, head_width); 0 are keys, 1 are values.
        lengths: how many tokens of each slot are there.
    """

    def __init__(self, shape: tuple[int, int, int], *, slots: int, longest: int, like: Tensor) -> None:
        layers, kv_heads, head_width = shape
        self.numbers = like.new_zeros(layers, 2, slots, kv_heads, longest, head_width)
        self.lengths = [0] * slots

    @property
    def longest(self) -> int:
        """The most tokens that a slot holds."""
        return self.numbers.shape[-2]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values per token of one sequence, on this rank: 2 L h_kv e, h_kv of this rank's heads."""
        layers, both, _, heads, _, width = self.numbers.shape
        return layers * both * heads * width * self.numbers.element_size()

    @property
    def reserved_bytes(self) -> int:
        """What all slots take, used or not."""
        return self.numbers.numel() * self.numbers.element_size()

    @property
    def used_bytes(self) -> int:
        """What the tokens that are there take."""
        return sum(self.lengths) * self.bytes_per_token

    def write(self, layer: int, slots: Sequence[int], positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Puts keys and values (rows, kv_heads, seq, head_width) at `positions` (rows, seq) of the rows' slots."""
        rows = torch.tensor(slots, device=positions.device)[:, None]
        for which, new in enumerate((keys, values)):
            self.numbers[layer, which][rows, :, positions] = new.transpose(1, 2)  # (rows, seq, kv_heads, head_width)

    def read(self, layer: int, slots: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
        """The first `length` keys and values of each slot, (rows, kv_heads, length, head_width)."""
        rows = self.numbers[layer, :, list(slots), :, :length]
        return rows[0], rows[1]

    def sequence(self, slot: int) -> Tensor:
        """What one sequence has, (layers, 2, kv_heads, length, head_width), without gaps: this is what can be sent."""
        return self.numbers[:, :, slot, :, : self.lengths[slot]].contiguous()

    def put(self, slot: int, sequence: Tensor) -> None:
        """Takes over what `sequence` returned on another rank."""
        self.lengths[slot] = sequence.shape[-2]
        self.numbers[:, :, slot, :, : self.lengths[slot]] = sequence

    def free(self, slot: int) -> None:
        """The slot is empty again; its numbers are written over later."""
        self.lengths[slot] = 0
