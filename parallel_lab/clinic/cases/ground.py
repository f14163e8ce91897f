"""What several cases share: a small data set, a small model, and the one process that trains on it."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from parallel_lab.clinic.instruments import Samples
from parallel_lab.model.mlp import MLP
from parallel_lab.model.reference import Reference, build, train

FEATURES, HIDDEN, CLASSES = 6, 8, 4
LR = 0.5


def model_of(seed: int, dtype: torch.dtype = torch.float64) -> MLP:
    """A classifier of two layers; the same seed gives the same weights."""
    return build((FEATURES, HIDDEN, CLASSES), seed, dtype)


def points(count: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """`count` points in float64, a quarter of them around each of four centers, in random order; and their classes."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.arange(count)[torch.randperm(count, generator=draw)] % CLASSES
    centers = torch.eye(CLASSES, FEATURES, dtype=torch.float64) * 2
    return centers[targets] + spread * torch.randn(count, FEATURES, generator=draw, dtype=torch.float64), targets


def samples_of(count: int, seed: int) -> Samples:
    """The points of `points` as a data set."""
    return Samples(*points(count, seed))


def trained(seed: int, data: tuple[Tensor, Tensor], batches: Iterable[Sequence[int] | Tensor]) -> Reference:
    """One process that trains on these batches of places in `data`, one after another, with plain SGD."""
    inputs, targets = data
    return train(model_of(seed), [(inputs[b], targets[b]) for b in batches], torch.optim.SGD, lr=LR)
