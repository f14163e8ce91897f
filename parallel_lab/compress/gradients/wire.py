"""What compressed gradients are on the wire: bytes. Codes of a few bits packed, several tensors in one message.

A message is one vector of bytes, so that numbers, places and scales of a bucket travel together: a collective for each
would cost its latency again.
"""

from collections.abc import Iterable, Sequence
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.runtime.gather import all_gather

WIDTHS = (1, 2, 4, 8)  # bits of a code: so many that whole codes fit in a byte
SCALE_BYTES = 4  # a scale, mean or norm travels as float32
Sizes = int | Iterable[Sequence[int]]
"""How much is compressed: a number of elements, or the shapes of the parameters."""


def elements_of(sizes: Sizes) -> int:
    """How many elements `sizes` are."""
    return sizes if isinstance(sizes, int) else sum(prod(shape) for shape in sizes)


def width_for(codes: int) -> int:
    """The bits of a code of which there are `codes`.

    Raises:
        ValueError: they do not fit in a byte.
    """
    if codes > 2 ** WIDTHS[-1]:
        raise ValueError(f"{codes} different codes do not fit in a byte: expected at most {2 ** WIDTHS[-1]}")
    return next(bits for bits in WIDTHS if codes <= 2**bits)


def packed_bytes(elements: int, bits: int) -> int:
    """The bytes of `elements` codes of `bits` bits; the last byte may be partly empty."""
    return -(-elements * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (..., elements) of type uint8, each below 2^bits, as bytes (..., packed_bytes)."""
    each = 8 // bits
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % each)).unflatten(-1, (-1, each))
    out = codes[..., 0].clone()
    for place in range(1, each):
        out |= codes[..., place] << place * bits
    return out


def unpack(data: Tensor, bits: int, elements: int) -> Tensor:
    """The codes (..., elements) that `pack` has put into `data`."""
    if bits == 8:
        return data
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
    codes = (data.unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.flatten(-2)[..., :elements]


def joined(*tensors: Tensor) -> Tensor:
    """Tensors of any dtypes, equal but for their last dimension, as one message of bytes (..., bytes)."""
    return torch.cat([tensor.contiguous().view(torch.uint8) for tensor in tensors], dim=-1)


def parted(message: Tensor, *kinds: tuple[torch.dtype, int]) -> list[Tensor]:
    """The tensors of a message: of each its dtype and the size of its last dimension."""
    parts = message.split([dtype.itemsize * count for dtype, count in kinds], dim=-1)
    copies = [part.new_empty(part.shape).copy_(part) for part in parts]  # which are aligned
    return [part.view(dtype) for part, (dtype, _) in zip(copies, kinds, strict=True)]


def gather(group: dist.ProcessGroup, message: Tensor) -> tuple[dist.Work, Tensor]:
    """Starts to bring everyone's message (bytes,) to every rank, (n, bytes): n - 1 messages leave each."""
    every = message.new_empty(group.size(), message.numel())
    return all_gather(every.view(-1), message, group), every
