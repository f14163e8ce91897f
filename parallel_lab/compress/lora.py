"""LoRA: a large frozen matrix, and a small product beside it that learns.

Hu et al. 2021, "LoRA: low-rank adaptation of large language models", section 4.1. Three ideas:

- w becomes w + (alpha / R) down up: down, from the columns to R numbers, is drawn at random, and up, from these to the
  rows, is zero: training starts at w exactly. (The paper calls them `A` and `B`.)
- Gradients and optimizer state belong to down and up alone: R (rows + columns) numbers of rows columns. w is read, and
  never sent.
- Once trained, their product is added to w: the merged model has the shapes and the speed of the one before.

    replicated             all weights, at the bytes of their type; they may be quantized, as nothing changes them
    sent per rank and step 2 (n-1)/n times the bytes of down and up, since DDP leaves frozen parameters alone
    held per rank          w; of down and up the 16 bytes a parameter of Adam
"""

from collections.abc import Collection
from copy import deepcopy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.compress.pruning import prunable

M = TypeVar("M", bound=nn.Module)


class LoRA(nn.Module):
    """A linear with its adapter, (..., columns) to (..., rows).

    Attributes:
        linear: frozen.
        a: down, (rank, columns).
        b: up, (rows, rank), zero at first.
        scale: alpha / rank.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        weight = linear.weight
        self.a = nn.Parameter(torch.randn(rank, weight.shape[1]).to(weight) / weight.shape[1] ** 0.5)
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))

    def forward(self, x: Tensor) -> Tensor:
        """What the linear returns, and what the adapter adds."""
        return self.linear(x) + self.scale * F.linear(F.linear(x, self.a), self.b)

    def merged(self) -> nn.Linear:
        """A linear of the same shape that returns the same."""
        linear = deepcopy(self.linear).requires_grad_(True)
        with torch.no_grad():
            linear.weight += self.scale * self.b @ self.a
        return linear


def lora(model: M, rank: int, alpha: float, *, layers: Collection[str] | None = None) -> M:
    """A copy of `model`, all of it frozen, with an adapter beside each linear, or beside those named in `layers`.

    What leads down is drawn by torch's generator, which has to be seeded alike on ranks that do not get it from rank 0.
    `layers` has the last parts of names: `("query", "value")`.

    Raises:
        ValueError: `rank` is below 1, or no linear has such a name.
    """
    if rank < 1:
        raise ValueError(f"a rank of {rank}: expected at least 1")
    model = deepcopy(model).requires_grad_(False)
    names = [name.removesuffix(".weight") for name in prunable(model)]
    wanted = [name for name in names if layers is None or name.rsplit(".")[-1] in layers]
    linears = {name: layer for name in wanted if isinstance(layer := model.get_submodule(name), nn.Linear)}
    if not linears:
        raise ValueError(f"no linear is named {' or '.join(layers or ('anything',))}: the model has {', '.join(names)}")
    for name, layer in linears.items():
        model.set_submodule(name, LoRA(layer, rank, alpha))
    return model


def merge(model: M) -> M:
    """A copy of `model` with each adapter added to its linear: names and shapes as before `lora`, all trainable."""
    model = deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRA):
            model.set_submodule(name, module.merged())
    return model.requires_grad_(True)
