"""What the cases share in which each rank has batches of its own, all of one size."""

import torch
from torch import Tensor

from parallel_lab.clinic.cases.ground import LR, model_of, points
from parallel_lab.clinic.job import States
from parallel_lab.model.reference import Reference, train

Batch = tuple[Tensor, Tensor]


def batches_of(rank: int, seed: int, steps: int, size: int, spread: float = 1.0) -> list[Batch]:
    """The batches of one rank, `size` points each."""
    inputs, targets = points(steps * size, 1000 * seed + rank, spread)
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def together(ranks: int, seed: int, steps: int, size: int, spread: float = 1.0) -> list[Batch]:
    """For each step what all ranks have, as one batch."""
    each = zip(*(batches_of(rank, seed, steps, size, spread) for rank in range(ranks)), strict=True)
    return [(torch.cat([x for x, _ in step]), torch.cat([y for _, y in step])) for step in each]


def alone(ranks: int, seed: int, steps: int, size: int) -> Reference:
    """One process that trains on the batches of all ranks."""
    return train(model_of(seed), together(ranks, seed, steps, size), torch.optim.SGD, lr=LR)


def same_everywhere(reference: Reference, ranks: int) -> States:
    """Every rank comes to what one process came to."""
    return [reference.weights] * ranks
