"""Low rank: a matrix becomes the product of two thin ones.

Eckart and Young 1936, "The approximation of one matrix by another of lower rank"; for networks Denton et al. 2014,
"Exploiting linear structure within convolutional networks". Three ideas:

- Of all matrices of rank R, the one from the R largest singular values is nearest, and what it is off, squared and
  summed, is the sum of the squares of the singular values that were dropped.
- The chosen *energy* is the share of the sum of squares that stays; the rank follows from it, layer by layer.
- rows columns numbers become R (rows + columns), which is less only where R < rows columns / (rows + columns): half of
  the side of a square matrix. A trained matrix is often not that flat, and the layer then stays as it is.

    stored, sent per step, computed    R (rows + columns) in place of rows columns, where it is less
"""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from parallel_lab.compress.pruning import prunable

M = TypeVar("M", bound=nn.Module)


def rank_for(singular: Tensor, energy: float) -> int:
    """The least rank that keeps the share `energy` of the sum of squares of the `singular` values, which fall.

    Raises:
        ValueError: `energy` is not in (0, 1].
    """
    if not 0 < energy <= 1:
        raise ValueError(f"an energy of {energy}: expected the share that stays, more than 0 and at most 1")
    kept = singular.double().square().cumsum(0)
    return int((kept < energy * kept[-1]).sum()) + 1 if energy < 1 else len(singular)


def factor(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`left` (rows, rank) and `right` (rank, columns), whose product is the nearest of that rank to `weight`."""
    left, singular, right = torch.linalg.svd(weight.detach(), full_matrices=False)
    root = singular[:rank].sqrt()
    return left[:, :rank] * root, root.unsqueeze(1) * right[:rank]


def pays(rows: int, columns: int, rank: int) -> bool:
    """Whether two factors have fewer numbers than the matrix."""
    return rank * (rows + columns) < rows * columns


def low_rank(model: M, energy: float = 0.9) -> M:
    """A copy of `model` in which each linear that gets smaller by it is two: columns to rank, and rank to rows.

    An output layer that shares the embedding's weight stays.

    Raises:
        ValueError: `energy` is not in (0, 1].
    """
    model = deepcopy(model)
    for name, weight in prunable(model).items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        if isinstance(layer, nn.Linear):
            rank = rank_for(torch.linalg.svdvals(weight.detach()), energy)
            if pays(layer.out_features, layer.in_features, rank):
                model.set_submodule(name.removesuffix(".weight"), _two(layer, rank))
    return model


def _two(layer: nn.Linear, rank: int) -> nn.Sequential:
    left, right = factor(layer.weight, rank)
    down = nn.Linear(layer.in_features, rank, bias=False, device="meta")
    up = nn.Linear(rank, layer.out_features, bias=False, device="meta")
    down.weight, up.weight, up.bias = nn.Parameter(right), nn.Parameter(left), layer.bias
    return nn.Sequential(down, up)
