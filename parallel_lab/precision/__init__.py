"""Precision: what numbers are kept, computed, summed and stored in, and what each of these costs."""

from parallel_lab.precision import exponents, float8, formats, formulas, microscaling, rounding, sums
from parallel_lab.precision.float8 import DelayedScaling, Scaled, quantize
from parallel_lab.precision.formats import BFLOAT16, E4M3, E5M2, FLOAT16, FLOAT32, Format, format_of
from parallel_lab.precision.loss_scale import DynamicScale, StaticScale
from parallel_lab.precision.policy import MasterWeights, MixedPrecision, Policy
from parallel_lab.precision.rounding import KahanSGD, kahan_sum, stochastic_round
from parallel_lab.precision.sums import reproducible_all_reduce, reproducible_sum

__all__ = [
    "BFLOAT16",
    "E4M3",
    "E5M2",
    "FLOAT16",
    "FLOAT32",
    "DelayedScaling",
    "DynamicScale",
    "Format",
    "KahanSGD",
    "MasterWeights",
    "MixedPrecision",
    "Policy",
    "Scaled",
    "StaticScale",
    "exponents",
    "float8",
    "format_of",
    "formats",
    "formulas",
    "kahan_sum",
    "microscaling",
    "quantize",
    "reproducible_all_reduce",
    "reproducible_sum",
    "rounding",
    "stochastic_round",
    "sums",
]
