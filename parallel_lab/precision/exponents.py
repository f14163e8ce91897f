"""Where gradients lie: a histogram of their exponents, and what of them a format has no number for.

Micikevicius et al. 2018, "Mixed Precision Training", figure 3 and section 3.2: of the activation gradients of a
detector two thirds are 0, and many of the others lie below float16's least number, while much of its range is empty.
Loss scaling by a power of two moves the histogram as many places to the right.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from parallel_lab.precision.formats import Format, exponent_of, format_of


class Exponents(NamedTuple):
    """A histogram of floor(log2 |number|).

    Attributes:
        counts: How many numbers have an exponent, from the lowest to the highest; between these also where it is 0.
        zeros: How many numbers are 0.
        others: How many are infinite or NaN.
    """

    counts: dict[int, int]
    zeros: int
    others: int


class Lost(NamedTuple):
    """Shares of the finite numbers that are not 0, when they are rounded to a format.

    Attributes:
        zero: Those that become 0.
        subnormal: Those that become numbers below the least normal one, with fewer digits.
        overflow: Those that become infinite, or saturate.
    """

    zero: float
    subnormal: float
    overflow: float


def histogram(tensors: Iterable[Tensor], *, scale: float = 1.0) -> Exponents:
    """The exponents of all numbers in `tensors`, times `scale`."""
    x = _flat(tensors) * scale
    found = exponent_of(x[x.isfinite() & (x != 0)])
    counts: dict[int, int] = {}
    if found.numel():
        lowest = int(found.min())
        counts = dict(enumerate(torch.bincount(found - lowest).tolist(), lowest))
    return Exponents(counts, int((x == 0).sum()), int((~x.isfinite()).sum()))


def lost(tensors: Iterable[Tensor], dtype: torch.dtype | Format, *, scale: float = 1.0) -> Lost:
    """What rounding the numbers, times `scale`, to `dtype` makes of them."""
    format, x = format_of(dtype), _flat(tensors)
    x = x[x.isfinite() & (x != 0)] * scale
    rounded, beyond = format.round(x).abs(), format.round(x, saturate=False).isfinite().logical_not()
    if format.top == "numbers":
        beyond = x.abs() > format.largest * (1 + format.unit_roundoff)
    below = (rounded > 0) & (rounded < format.least_normal)
    return Lost(*(float(each.double().mean()) if x.numel() else 0.0 for each in (rounded == 0, below, beyond)))


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers in float64: scaled by 2^16, those of float32 stay finite."""
    return torch.cat(
        [torch.zeros(0, dtype=torch.float64), *(each.detach().double().flatten().cpu() for each in tensors)]
    )
