"""Compression: what a model stores, what it sends when it is trained, and what either costs in quality."""

from parallel_lab.compress.quantization import Quantized, quantize

__all__ = [
    "Quantized",
    "quantize",
]
