"""Quantization: a weight as small integers, and a scale for each tensor, channel or group of them.

Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
section 2.1: w = S (q - Z), with an integer q of b bits, a scale S, and a zero point Z, the code of the number 0. Nagel
et al. 2021, "A white paper on neural network quantization", section 2. Numbers that share a scale share its error, so
one outlier costs all of them: a scale for each output channel, or for each group of g inputs, keeps that error local.

    stored     b bits a number (4-bit codes are packed two to a byte), a scale of 4 bytes for each scale, and, if not
               symmetric, a zero point of b bits
    error      a number within the range is off by S/2 at most; if its place between two codes is uniform, the mean
               squared error is S^2/12. Outside the range it is clipped, and the error has no such bound.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Per = Literal["tensor", "channel", "group"]
TINY = torch.finfo(torch.float32).eps  # the least scale, as PyTorch's observers have it: a channel of zeros has one


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """The least and the greatest code: -128 and 127 of 8 bits, and 0 and 255 where there is a zero point."""
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits: expected 2 to 8")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def blocks(weight: Tensor, per: Per, group: int) -> Tensor:
    """A view of `weight` (out, ...) in which the numbers of one scale stand in one row: (scales, numbers of each)."""
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
    """S and Z for numbers from `low` to `high`, each (scales,); the range always has 0 in it, which is then exact.

    Symmetric: Z = 0 and S = max(|low|, |high|) / ((2^b - 1) / 2). Otherwise S = (high - low) / (2^b - 1), and Z is the
    code where 0 comes to lie. Both as `torch.ao.quantization` has them.
    """
    least, most = code_range(bits, symmetric)
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = torch.maximum(-low, high) / (float(most - least) / 2)
        return scale.clamp(min=TINY), torch.zeros_like(scale, dtype=torch.int32)
    scale = ((high - low) / float(most - least)).clamp(min=TINY)
    zero = (least - torch.round(low / scale)).clamp(least, most)
    return scale, zero.to(torch.int32)


@dataclass(frozen=True)
class Quantized:
    """A weight in codes.

    Attributes:
        codes: of the weight's shape, int8 where symmetric and uint8 otherwise, whatever the bits.
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
        """S (q - Z), of the weight's shape and the scale's dtype."""
        rows = self.codes.reshape(len(self.scale), -1)
        return ((rows - self.zero[:, None]) * self.scale[:, None]).view(self.codes.shape)

    def stored_bytes(self) -> int:
        """Bytes of packed codes, of scales as they are, and of zero points of `bits` where there are any."""
        packed = -(-self.codes.numel() * self.bits // 8)
        zeros = 0 if self.symmetric else -(-len(self.zero) * self.bits // 8)
        return packed + len(self.scale) * self.scale.element_size() + zeros


@torch.no_grad()
def quantize(
    weight: Tensor, bits: int = 8, *, per: Per = "tensor", group: int = 128, symmetric: bool = True
) -> Quantized:
    """Rounds each number of `weight` (out, ...) to the nearest code, with ranges from the least to the greatest.

    Raises:
        ValueError: `bits` is not in 2 to 8, `per` is unknown, or a group does not divide the inputs.
    """
    rows = blocks(weight, per, group)
    scale, zero = scale_and_zero(*torch.aminmax(rows, dim=1), bits, symmetric)
    return encode(weight, scale, zero, bits, symmetric)


@torch.no_grad()
def encode(weight: Tensor, scale: Tensor, zero: Tensor, bits: int = 8, symmetric: bool = True) -> Quantized:
    """The codes of `weight` on a grid that is there already: round(w / S) + Z, clipped to the range of `bits`."""
    least, most = code_range(bits, symmetric)
    rows = weight.reshape(len(scale), -1)
    codes = (torch.round(rows / scale[:, None]) + zero[:, None]).clamp(least, most)
    return Quantized(
        codes.to(torch.int8 if symmetric else torch.uint8).view(weight.shape), scale, zero, bits, symmetric
    )
