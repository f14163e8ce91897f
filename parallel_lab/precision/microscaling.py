"""Microscaling (MX): blocks of 32 numbers share a scale that is a power of two, and have 8, 6 or 4 bits each.

OCP Microscaling Formats specification 1.0, sections 5 and 6.3; Rouhani et al. 2023, "Microscaling data formats for deep
learning", algorithm 1. The scale is 2^(floor(log2 amax) - emax), with emax the exponent of the element's largest
number, and is stored as E8M0: 8 bits of exponent, no sign, no mantissa. Division by it loses nothing, and hardware does
it by adding exponents. It rounds down: of a block whose amax has a larger mantissa than the largest number, the top
saturates.

    stored                 bits of an element + 8 / 32: 8.25, 6.25 and 4.25 bits a number
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parallel_lab.precision.float8 import Scaled, largest, scaled
from parallel_lab.precision.formats import E2M1, E2M3, E3M2, E4M3, E5M2, Format, exponent_of, power_of_two

BLOCK = 32
MOST = 127  # of the exponent of a scale, either way
NAN = 255  # the code of a scale that is none


class Fixed(Format):
    """Multiples of 2^-6 from -127/64 to 127/64 as whole numbers of 8 bits, in two's complement."""

    @property
    def least_exponent(self) -> int:
        """All numbers are as far apart as those from 1 to 2."""
        return 0

    def codes(self, steps: Tensor, exponent: Tensor, x: Tensor, *, saturate: bool | None = None) -> Tensor:
        """As of every format, but negative codes count down from 256."""
        size = super().codes(steps, exponent, x.abs(), saturate=True).to(torch.int16)
        return torch.where(x < 0, -size, size).to(torch.int8).view(torch.uint8)

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The numbers that `codes` stand for, exactly."""
        return codes.to(torch.uint8).view(torch.int8).to(dtype) / 64


@dataclass(frozen=True)
class MX:
    """A microscaling format: what its elements are."""

    name: str
    element: Format

    @property
    def bits(self) -> float:
        """Of a number, with its share of the scale."""
        return self.element.bits + 8 / BLOCK


MXFP8, MXFP8_E5M2 = MX("MXFP8", E4M3), MX("MXFP8 E5M2", E5M2)
MXFP6, MXFP6_E3M2 = MX("MXFP6", E2M3), MX("MXFP6 E3M2", E3M2)
MXFP4, MXINT8 = MX("MXFP4", E2M1), MX("MXINT8", Fixed("INT8", 1, 6, "numbers"))
ALL = (MXFP8, MXFP8_E5M2, MXFP6, MXFP6_E3M2, MXFP4, MXINT8)


def quantize(x: Tensor, format: MX = MXFP8) -> Scaled:
    """`x` in blocks of 32 along its last dimension; the last block of a row may be shorter.

    A block with a number that is not finite is NaN as a whole.
    """
    amax, element = largest(x, (1, BLOCK)), format.element
    top = exponent_of(torch.tensor(element.largest)).to(amax.device)
    exponent = (exponent_of(amax) - top).masked_fill(amax == 0, -MOST).clamp(-MOST, MOST)
    scale = power_of_two(exponent).float().masked_fill(~amax.isfinite(), torch.nan)
    return replace(scaled(x, scale, element, (1, BLOCK)), scale_bytes=1)


def scale_codes(scale: Tensor) -> Tensor:
    """Scales as E8M0, uint8: the exponent plus 127, and 255 for NaN."""
    return (exponent_of(scale.nan_to_num(1.0)) + MOST).masked_fill(scale.isnan(), NAN).to(torch.uint8)


def scales(codes: Tensor) -> Tensor:
    """The scales that E8M0 codes stand for, float32."""
    return power_of_two(codes.to(torch.int64) - MOST).float().masked_fill(codes == NAN, torch.nan)
