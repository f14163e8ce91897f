"""Compression: pruning, quantization, low rank and distillation of weights, and gradients that travel compressed."""
