"""A small model and its batches, in float64."""

import sys

import cloudpickle
import torch

from parallel_lab import model

# Ranks get these helpers as copies and need not import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LOSS = torch.nn.functional.cross_entropy
WIDTHS = (5, 7, 3)  # 66 parameters: neither 4 servers nor 5 divide them


def mlp(widths=WIDTHS):
    return model.build(widths, seed=1, dtype=torch.float64)


def batches(steps=8, size=6):
    draw = torch.Generator().manual_seed(3)
    each = [(torch.randn(size, 5, generator=draw), torch.randint(3, (size,), generator=draw)) for _ in range(steps)]
    return [(inputs.double(), targets) for inputs, targets in each]
