"""The loss of one batch, and what it counts for: the number of samples or tokens that it is the mean over.

Ranks with uneven batches, or with padding, average their gradients by these counts. Then the result is the mean over
the global batch, as in one process.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from parallel_lab.model.data import Batch
from parallel_lab.model.reference import to_model
from parallel_lab.trace import span

Loss = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, Tensor | float]]
"""A function of (outputs, targets): a mean over the targets, or a tuple (sum, count)."""

IGNORED = -100  # cross_entropy's ignore_index: a target that does not count


def mean_loss(model: nn.Module, batch: Batch, loss: Loss) -> tuple[Tensor, float]:
    """The mean loss of one batch, a scalar, and over how many samples or tokens it is the mean."""
    inputs, targets = to_model(model, batch)
    value = loss(model(inputs), targets)
    if isinstance(value, tuple):
        total, count = value
        return total / (count or 1), float(count)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return value, len(targets)
    return value, int((targets != IGNORED).sum())


def backward(model: nn.Module, batch: Batch | None, loss: Loss, mb: int) -> tuple[float, float]:
    """As `mean_loss`, for batch number `mb`, whose gradients are added to `.grad`; (0, 0) where nothing counts."""
    if batch is None or not len(batch[0]):
        return 0.0, 0
    with span("forward", mb=mb):
        mean, weight = mean_loss(model, batch, loss)
    with span("backward", mb=mb):
        if weight:
            mean.backward()
    return (mean.item(), weight) if weight else (0.0, 0)
