"""Floating formats of any width, bit by bit: what numbers they have, how a number is rounded to one of them, its code.

IEEE 754-2019, section 3.4, for float16 and the layout of a code: sign, exponent, mantissa. Micikevicius et al. 2022,
"FP8 formats for deep learning", section 3, for E4M3 and E5M2; the OCP Microscaling Formats specification 1.0, section
5.3, for those of 6 and 4 bits. In the interval from 2^exponent to twice that, neighbors are 2^(exponent -
mantissa_bits) apart; below the least normal number, 2^least_exponent, the distance stays what it was. So a number, once
it is rounded, is a whole number of such steps, and its code without the sign is (exponent - least_exponent)
2^mantissa_bits + steps: codes stand in the order of their numbers.

All is computed in float64, where every step is exact; so codes are the same on every device.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float64, exactly, for whole numbers from -1022 to 1023; written as bits, not computed."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def exponent_of(x: Tensor) -> Tensor:
    """floor(log2 |x|) as int64, exactly; of 0 and of what is not finite it means nothing."""
    return torch.frexp(x.double()).exponent.to(torch.int64) - 1


@dataclass(frozen=True)
class Format:
    """A binary floating format with a sign, `exponent_bits` and `mantissa_bits`.

    Attributes:
        name: As the trade calls it.
        exponent_bits: at least 2.
        mantissa_bits: without the leading one that is not stored.
        top: What the highest codes mean. `ieee`: those of the highest exponent are infinity and NaN. `nan`: the very
            highest is NaN, and there is no infinity. `numbers`: all are numbers.
        dtype: torch's type of this format, where it has one.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    top: Literal["ieee", "nan", "numbers"] = "ieee"
    dtype: torch.dtype | None = None

    @property
    def bits(self) -> int:
        """Of a number, with its sign."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def least_exponent(self) -> int:
        """That of the least normal number: 2 - 2^(exponent_bits - 1)."""
        return 2 - 2 ** (self.exponent_bits - 1)

    @property
    def largest_code(self) -> int:
        """The code of the largest finite number."""
        codes = 1 << (self.bits - 1)
        return {"ieee": codes - (1 << self.mantissa_bits), "nan": codes - 1, "numbers": codes}[self.top] - 1

    @property
    def largest(self) -> float:
        """The largest finite number: 65,504 of float16, 448 of E4M3."""
        return float(self.decode(torch.tensor(self.largest_code), dtype=torch.float64))

    @property
    def least_normal(self) -> float:
        """2^least_exponent: below it mantissas get shorter."""
        return 2.0**self.least_exponent

    @property
    def least(self) -> float:
        """The least number above 0; half of it, and what is below, rounds to 0."""
        return 2.0 ** (self.least_exponent - self.mantissa_bits)

    @property
    def unit_roundoff(self) -> float:
        """u, the largest relative error of rounding to nearest, without over- or underflow: 2^-(mantissa_bits + 1)."""
        return 2.0 ** -(self.mantissa_bits + 1)

    def encode(self, x: Tensor, *, saturate: bool | None = None) -> Tensor:
        """The codes of `x`, rounded to nearest, ties to even: uint8, or int32 of more than 8 bits.

        Args:
            x: numbers of any shape, in float32 or narrower.
            saturate: what is too large becomes the largest number; else infinity, or NaN where there is none. By
                default as torch casts: only formats with infinity have what overflows become it.
        """
        steps, exponent = self.steps(x)
        return self.codes(steps.round(), exponent, x, saturate=saturate)

    def steps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """|x| in distances of neighbors, float64 and not yet whole, and the exponent of its interval, int64."""
        size = x.detach().double().abs().nan_to_num(0.0, 0.0)
        exponent = exponent_of(size).clamp(min=self.least_exponent).masked_fill(size == 0, self.least_exponent)
        return size * power_of_two(self.mantissa_bits - exponent), exponent

    def codes(self, steps: Tensor, exponent: Tensor, x: Tensor, *, saturate: bool | None = None) -> Tensor:
        """The codes of so many whole steps at `exponent`, with the signs of `x`, and its NaNs and infinities."""
        saturate = self.top != "ieee" if saturate is None else saturate
        largest, sign = self.largest_code, 1 << (self.bits - 1)
        beyond = largest if saturate else largest + 1  # infinity, or NaN where there is no infinity
        code = (exponent - self.least_exponent) * 2**self.mantissa_bits + steps.to(torch.int64)
        code = code.masked_fill((code > largest) | x.isinf(), beyond)
        code = code.masked_fill(x.isnan(), sign - 1) + sign * x.signbit()
        return code.to(torch.uint8 if self.bits <= 8 else torch.int32)

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The numbers that `codes` stand for, exactly."""
        code = codes.to(torch.int64)
        code, negative = code & ((1 << (self.bits - 1)) - 1), (code >> (self.bits - 1)) & 1
        field, mantissa = code >> self.mantissa_bits, code & (2**self.mantissa_bits - 1)
        steps = mantissa + (field > 0) * 2**self.mantissa_bits
        size = steps * power_of_two(field.clamp(min=1) - 1 + self.least_exponent - self.mantissa_bits)
        infinity = self.largest_code + 1 if self.top == "ieee" else -1
        size = size.masked_fill(code > self.largest_code, torch.nan).masked_fill(code == infinity, torch.inf)
        return torch.where(negative.bool(), -size, size).to(dtype)

    def round(self, x: Tensor, *, saturate: bool | None = None) -> Tensor:
        """The nearest numbers of this format, in the dtype of `x`."""
        return self.decode(self.encode(x, saturate=saturate), x.dtype)


FLOAT32 = Format("float32", 8, 23, dtype=torch.float32)
BFLOAT16 = Format("bfloat16", 8, 7, dtype=torch.bfloat16)
FLOAT16 = Format("float16", 5, 10, dtype=torch.float16)
E5M2 = Format("E5M2", 5, 2, dtype=torch.float8_e5m2)
E4M3 = Format("E4M3", 4, 3, "nan", torch.float8_e4m3fn)
E3M2 = Format("E3M2", 3, 2, "numbers")
E2M3 = Format("E2M3", 2, 3, "numbers")
E2M1 = Format("E2M1", 2, 1, "numbers")
FORMATS = (FLOAT32, BFLOAT16, FLOAT16, E5M2, E4M3, E3M2, E2M3, E2M1)


def format_of(what: Format | torch.dtype) -> Format:
    """The format of a dtype; a format is what it is.

    Raises:
        ValueError: it is none of those here.
    """
    found = [each for each in FORMATS if what in (each, each.dtype)]
    if not found:
        names = ", ".join(each.name for each in FORMATS)
        raise ValueError(f"{what} has no format here: expected torch's dtype of one of {names}, or the format itself")
    return found[0]
