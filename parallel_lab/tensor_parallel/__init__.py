"""Tensor parallelism: layers and matrix products whose operands are cut over ranks."""
