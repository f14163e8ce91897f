"""Random arguments for learner code. A rank imports this module, so it imports nothing but torch."""

import torch


def normal(rank: int, ranks: int, generator: torch.Generator, *, shape: tuple[int, ...], more: tuple = ()) -> tuple:
    """One float64 tensor of `shape`, its own on each rank, followed by the arguments `more`, the same on all."""
    return torch.randn(shape, generator=generator, dtype=torch.float64), *more


def blocks(rank: int, ranks: int, generator: torch.Generator, *, shape: tuple[int, ...]) -> tuple:
    """A list of `ranks` float64 tensors of `shape`: item i is what this rank has for rank i."""
    return ([torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(ranks)],)
