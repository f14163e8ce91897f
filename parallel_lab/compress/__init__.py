"""Compression: what a model stores, what it sends when it is trained, and what either costs in quality."""

from parallel_lab.compress import formulas
from parallel_lab.compress.activation_aware import activation_aware, activation_aware_model
from parallel_lab.compress.calibration import Observer, collect, least_squares, percentile, round_inputs
from parallel_lab.compress.compare import Task, compare
from parallel_lab.compress.gptq import gptq, gptq_model
from parallel_lab.compress.quantization import Quantized, min_max, quantize
from parallel_lab.compress.quantization_aware import convert, prepare
from parallel_lab.compress.quantized_linear import QuantizedLinear, round_to_nearest

__all__ = [
    "Observer",
    "Quantized",
    "QuantizedLinear",
    "Task",
    "activation_aware",
    "activation_aware_model",
    "collect",
    "compare",
    "convert",
    "formulas",
    "gptq",
    "gptq_model",
    "least_squares",
    "min_max",
    "percentile",
    "prepare",
    "quantize",
    "round_inputs",
    "round_to_nearest",
]
