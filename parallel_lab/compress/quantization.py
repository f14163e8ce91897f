"""Quantization: a weight as small integers, and a scale for each tensor, channel or group of them.

Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
section 2.1: w = Δ (code - zero), with an integer code of a few bits, a scale Δ, and a zero point, the code of the
number 0. Numbers that share a scale share its error, so one outlier costs all of them: a scale for each output channel,
or for each group of inputs, keeps that error local (Nagel et al. 2021, "A white paper on neural network quantization").

    stored     the bits of a code a number, packed; 4 bytes for each scale; where not symmetric, the bits of a code for
               each zero point
    error      a number within the range is off by Δ/2 at most, and Δ^2/12 in the mean square if its place between two
               codes is uniform. Outside the range it is clipped, and the error has no such bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Per = Literal["tensor", "channel", "group"]
Range = Callable[[Tensor], tuple[Tensor, Tensor]]  # of rows that share a scale each: the least and the greatest number
TINY = torch.finfo(torch.float32).eps  # the least scale, that of a channel of zeros, as PyTorch's observers have it


def min_max(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The range from the least to the greatest number of each row of (scales, numbers): nothing is clipped."""
    return torch.aminmax(rows, dim=1)


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """The least and the greatest code: -128 and 127 of 8 bits, and 0 and 255 where there is a zero point."""
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits: expected 2 to 8")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def blocks(weight: Tensor, per: Per, group: int) -> Tensor:
    """`weight` (out, ...) with the numbers of one scale in one row: (scales, numbers of each).

    Raises:
        ValueError: `per` is unknown, or a group does not divide the inputs.
    """
    if per == "tensor":
        return weight.reshape(1, -1)
    if per == "channel":
        return weight.reshape(len(weight), -1)
    if per != "group":
        raise ValueError(f"per is {per!r}: expected tensor, channel or group")
    inputs = weight[0].numel()
    if group < 1 or inputs % group:
        raise ValueError(f"{inputs} inputs do not divide into groups of {group}")
    return weight.reshape(-1, group)


def scale_and_zero(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Δ and zero for numbers from `low` to `high`, each (scales,). The range always reaches to 0, which is exact.

    Symmetric: zero = 0 and Δ = max(|low|, |high|) / ((2^bits - 1) / 2). Otherwise Δ = (high - low) / (2^bits - 1), and
    zero is the code where 0 comes to lie. Both as `torch.ao.quantization` has them.
    """
    least, most = code_range(bits, symmetric)
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = torch.maximum(-low, high) / (float(most - least) / 2)
        return scale.clamp(min=TINY), torch.zeros_like(scale, dtype=torch.int32)
    scale = ((high - low) / float(most - least)).clamp(min=TINY)
    zero = least - torch.round(low / scale).to(torch.int32)
    return scale, zero.clamp(least, most)


@dataclass(frozen=True)
class Quantized:
    """A weight in codes.

    Attributes:
        codes: of the weight's shape, int8 where symmetric and uint8 otherwise: a byte each, until they are packed.
        scale: (scales,): one for the tensor, one for each row, or one for each group of a row, row after row.
        zero: (scales,), int32; zeros where symmetric.
        bits: of a code.
        symmetric: whether there is no zero point to store.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bits: int = 8
    symmetric: bool = True

    def dequantize(self) -> Tensor:
        """Δ (code - zero), of the weight's shape and the scale's dtype."""
        rows = self.codes.reshape(len(self.scale), -1)
        return ((rows - self.zero[:, None]) * self.scale[:, None]).view(self.codes.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes of packed codes, of scales as they are, and of zero points where there are any."""
        packed = [self.codes.numel()] + ([] if self.symmetric else [len(self.zero)])
        return sum(self.bits * -(-count // 8) for count in packed) + self.scale.numel() * self.scale.element_size()


@torch.no_grad()
def quantize(
    weight: Tensor,
    bits: int = 8,
    *,
    per: Per = "tensor",
    group: int = 128,
    symmetric: bool = True,
    find: Range = min_max,
) -> Quantized:
    """Rounds each number of `weight` (out, ...) to the nearest code of its range, which `find` gives.

    Raises:
        ValueError: `bits` is not in 2 to 8, `per` is unknown, or a group does not divide the inputs.
    """
    scale, zero = scale_and_zero(*find(blocks(weight, per, group)), bits, symmetric)
    return encode(weight, scale, zero, bits, symmetric)


@torch.no_grad()
def encode(weight: Tensor, scale: Tensor, zero: Tensor, bits: int = 8, symmetric: bool = True) -> Quantized:
    """The codes of `weight` on a grid that is there already: round(w / Δ) + zero, clipped to those of `bits`."""
    rows = weight.reshape(len(scale), -1)
    codes = torch.round(rows * (1 / scale[:, None])) + zero[:, None]
    codes = codes.clamp(*code_range(bits, symmetric)).to(torch.int8 if symmetric else torch.uint8)
    return Quantized(codes.view(weight.shape), scale, zero, bits, symmetric)


def pack(codes: Tensor, bits: int) -> Tensor:
    """The low `bits` bits of each code, eight numbers in a byte, one plane a bit: uint8 (bits, ceil(numbers / 8))."""
    flat = torch.nn.functional.pad(codes.flatten().to(torch.uint8), (0, -codes.numel() % 8)).view(-1, 8)
    places = torch.arange(8, device=codes.device, dtype=torch.uint8)
    return torch.stack([(((flat >> bit) & 1) << places).sum(1, dtype=torch.uint8) for bit in range(bits)])


def unpack(packed: Tensor, shape: torch.Size, symmetric: bool) -> Tensor:
    """The codes of `shape` that `pack` packed; where symmetric the highest bit is the sign."""
    bits, places = len(packed), torch.arange(8, device=packed.device, dtype=torch.uint8)
    planes = ((packed[:, :, None] >> places) & 1).flatten(1)[:, : shape.numel()]
    codes = sum((plane << bit for bit, plane in enumerate(planes)), torch.zeros_like(planes[0]))
    if not symmetric:
        return codes.view(shape)
    sign = 1 << (bits - 1)
    return ((codes.to(torch.int16) ^ sign) - sign).to(torch.int8).view(shape)
