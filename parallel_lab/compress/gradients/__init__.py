"""Gradients that travel compressed: hooks of `DDP`, and quantized collectives for `Zero3`."""

from parallel_lab.compress.gradients.error_feedback import Compressed, load_state, state_of
from parallel_lab.compress.gradients.low_precision import Cast
from parallel_lab.compress.gradients.power_sgd import PowerSGD
from parallel_lab.compress.gradients.qsgd import QSGD
from parallel_lab.compress.gradients.random_k import RandomK
from parallel_lab.compress.gradients.sharded import Quantized, TwoHops
from parallel_lab.compress.gradients.sign import OneBit, Sign
from parallel_lab.compress.gradients.top_k import TopK, break_even

__all__ = [
    "QSGD",
    "Cast",
    "Compressed",
    "OneBit",
    "PowerSGD",
    "Quantized",
    "RandomK",
    "Sign",
    "TopK",
    "TwoHops",
    "break_even",
    "load_state",
    "state_of",
]
