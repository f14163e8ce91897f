"""Compression: what a model stores, what it sends when it is trained, and what either costs in quality.

`compare`, the table of all methods, is imported by itself: it loads scikit-learn, which no rank should pay for.
"""

from parallel_lab.compress import formulas, gradients
from parallel_lab.compress.activation_aware import activation_aware, activation_aware_model
from parallel_lab.compress.calibration import Observer, collect, least_squares, percentile, round_inputs
from parallel_lab.compress.distillation import distillation_loss
from parallel_lab.compress.gptq import gptq, gptq_model
from parallel_lab.compress.iterative import cubic, fine_tune, geometric, iterative
from parallel_lab.compress.lora import lora, merge
from parallel_lab.compress.low_rank import low_rank
from parallel_lab.compress.pruning import Masks, magnitude, movement, n_m, prunable, saliency
from parallel_lab.compress.quantization import Quantized, min_max, quantize
from parallel_lab.compress.quantization_aware import convert, prepare
from parallel_lab.compress.quantized_linear import QuantizedLinear, round_to_nearest
from parallel_lab.compress.second_order import one_shot, sparse_gpt, wanda
from parallel_lab.compress.structured import prune_channels, prune_heads, prune_neurons

__all__ = [
    "Masks",
    "Observer",
    "Quantized",
    "QuantizedLinear",
    "activation_aware",
    "activation_aware_model",
    "collect",
    "convert",
    "cubic",
    "distillation_loss",
    "fine_tune",
    "formulas",
    "geometric",
    "gptq",
    "gptq_model",
    "gradients",
    "iterative",
    "least_squares",
    "lora",
    "low_rank",
    "magnitude",
    "merge",
    "min_max",
    "movement",
    "n_m",
    "one_shot",
    "percentile",
    "prepare",
    "prunable",
    "prune_channels",
    "prune_heads",
    "prune_neurons",
    "quantize",
    "round_inputs",
    "round_to_nearest",
    "saliency",
    "sparse_gpt",
    "wanda",
]
