"""Precision: what numbers are kept, computed, summed and stored in, and what each of these costs."""

from parallel_lab.precision import float8, formats
from parallel_lab.precision.formats import BFLOAT16, E4M3, E5M2, FLOAT16, FLOAT32, Format, format_of
from parallel_lab.precision.loss_scale import DynamicScale, StaticScale
from parallel_lab.precision.policy import MasterWeights, MixedPrecision, Policy

__all__ = [
    "BFLOAT16",
    "E4M3",
    "E5M2",
    "FLOAT16",
    "FLOAT32",
    "DynamicScale",
    "Format",
    "MasterWeights",
    "MixedPrecision",
    "Policy",
    "StaticScale",
    "float8",
    "format_of",
    "formats",
]
