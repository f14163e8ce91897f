"""Eight bits a number: a tensor, or each block of it, is brought into the range of E4M3 or E5M2 by a scale of its own.

Micikevicius et al. 2022, "FP8 formats for deep learning", section 3; DeepSeek-AI 2024, "DeepSeek-V3", section 3.3, for
blocks: 1 x 128 of activations, 128 x 128 of weights. E4M3 has the range 2^-9 to 448 and three bits of mantissa, E5M2
2^-16 to 57,344 and two: weights and activations take the one, gradients the other. The scale amax / largest puts amax,
the largest number without its sign, on the format's largest number; what is divided by the scale is rounded, and the
scale travels along in float32. *Current* scaling takes amax from the tensor itself, which must be read once more.
*Delayed* scaling takes it from the steps before: the tensor is read once, and what has grown meanwhile saturates.

    stored                 1 byte a number, 4 bytes a scale: 1.0313 bytes a number with blocks of 128
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from parallel_lab.agree.arguments import whole
from parallel_lab.precision.formats import E4M3, E5M2, Format

__all__ = ["E4M3", "E5M2", "DelayedScaling", "Format", "Scaled", "decode", "encode", "matmul", "quantize"]

Block = tuple[int, int] | None


def encode(x: Tensor, format: Format, *, saturate: bool | None = None) -> Tensor:
    """The codes of `x`, uint8, as `Format.encode`: to nearest, ties to even, to the last bit as torch casts."""
    return format.encode(x, saturate=saturate)


def decode(codes: Tensor, format: Format) -> Tensor:
    """The numbers that `codes` stand for, float32."""
    return format.decode(codes)


@dataclass(frozen=True)
class Scaled:
    """A tensor in a narrow format, as numbers of that format times scales.

    Attributes:
        values: In float32, numbers of the format exactly; the shape of what was quantized.
        scale: float32: a scalar, or one for each block (block rows, block columns).
        format: Of the values.
        block: (rows, columns) of a block; None for one scale.
        scale_bytes: What a scale takes where it is stored.
    """

    values: Tensor
    scale: Tensor
    format: Format
    block: Block = None
    scale_bytes: int = 4

    @property
    def codes(self) -> Tensor:
        """What is stored of the values."""
        return self.format.encode(self.values)

    @property
    def stored_bytes(self) -> float:
        """Bytes of codes and scales; codes of less than 8 bits lie without gaps."""
        return self.values.numel() * self.format.bits / 8 + self.scale.numel() * self.scale_bytes

    def dequantize(self) -> Tensor:
        """The tensor that this stands for, float32."""
        return self.values * spread(self.scale, self.block, self.values.shape)


def quantize(x: Tensor, format: Format = E4M3, *, block: Block = None) -> Scaled:
    """`x` in `format`, current scaling: each block's largest |x| becomes the format's largest number.

    A block with a number that is not finite is NaN as a whole, so that a search for overflow finds it.

    Args:
        x: of any shape, in float32 or narrower.
        format: E4M3, E5M2, or another.
        block: (rows, columns) that share a scale, of the last dimension and all before it; blocks at the edge may be
            smaller. None has one scale for all.

    Raises:
        ValueError: a block is not two whole numbers of at least 1.
    """
    return scaled(x, scale_for(largest(x, block), format), format, block)


def scaled(x: Tensor, scale: Tensor, format: Format, block: Block = None) -> Scaled:
    """`x` with these scales, of which each block of x has one; what is too large for the format saturates."""
    values = x.detach().float() / spread(scale, block, x.shape)
    return Scaled(format.round(values, saturate=True), scale, format, block)


def largest(x: Tensor, block: Block = None) -> Tensor:
    """amax: the largest |x| of all, a scalar, or of each block (block rows, block columns), float32."""
    size = x.detach().float().abs()
    if block is None:
        return size.amax()
    rows, columns = (whole("block", each) for each in block)
    size = size.reshape(-1, x.shape[-1])
    short = [-length % of for length, of in zip(size.shape, (rows, columns), strict=True)]
    size = torch.nn.functional.pad(size, (0, short[1], 0, short[0]))
    return size.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).amax((1, 3))


def scale_for(amax: Tensor, format: Format) -> Tensor:
    """amax / largest; 1 where all numbers are 0, infinite or NaN where amax is."""
    return (amax / format.largest).masked_fill(amax == 0, 1.0)


def spread(scale: Tensor, block: Block, shape: torch.Size) -> Tensor:
    """The scale of each element of a tensor of this shape."""
    if block is None:
        return scale
    whole_rows = scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return whole_rows[: shape[:-1].numel(), : shape[-1]].reshape(shape)


class DelayedScaling:
    """Scales from the largest |x| of the last `history` steps, so that x is read once; one object for each tensor.

    The first step has nothing to look back on and scales by itself. A step whose x is not finite gives NaN, and is not
    remembered: in loss scaling it is the one that is skipped.

    Args:
        history: how many steps count.
        margin: the scale is 2^margin times larger, room for what grows.
    """

    def __init__(self, history: int = 16, *, margin: int = 0) -> None:
        self.amax: deque[Tensor] = deque(maxlen=whole("history", history))
        self.margin = margin

    def quantize(self, x: Tensor, format: Format = E4M3) -> Scaled:
        """`x` in `format` by the scale of the steps before; what is larger than all of them saturates."""
        now = largest(x)
        if not now.isfinite():
            return scaled(x, now, format)
        before = torch.stack(list(self.amax or [now])).amax()
        self.amax.append(now)
        return scaled(x, scale_for(before, format) * 2.0**self.margin, format)


def matmul(a: Scaled, b: Scaled) -> Tensor:
    """The product of two matrices with one scale each: codes are multiplied, sums are float32, scales come last.

    Tensor cores do it so, where their sums have enough bits (DeepSeek-V3, section 3.3.2, found about 14 on H800).

    Raises:
        ValueError: one of them has blocks: their scales belong inside the sum. Dequantize first.
    """
    if a.block or b.block:
        raise ValueError("a product of blocks needs their scales inside the sum: multiply a.dequantize() instead")
    return (a.values @ b.values) * (a.scale * b.scale)
