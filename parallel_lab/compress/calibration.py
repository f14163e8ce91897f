"""Calibration: a few batches of training data say which range a grid has to cover, and which inputs count most.

A weight's range is known; that of activations has to be seen (Jacob et al. 2018, section 3). The whole range clips
nothing, and an outlier makes its steps wide; a narrower one clips few and rounds many numbers better. Three rules, as in
Nagel et al. 2021, section 3.1: from the least to the greatest, all but a share of them, or what has the least mean
squared error. Calibration is a part of training: data that it has seen measure no quality any more.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallel_lab.compress.quantization import Range, encode, min_max, scale_and_zero
from parallel_lab.compress.quantized_linear import QuantizedLinear
from parallel_lab.model.data import Batch
from parallel_lab.model.reference import to_model

TRIED = 80  # ranges that `least_squares` tries


def percentile(rows: Tensor, share: float = 0.999) -> tuple[Tensor, Tensor]:
    """The range of the middle `share` of each row of (scales, numbers); as many are clipped at either end."""
    rest = (1 - share) / 2
    ordered = rows.sort(dim=1).values
    places = torch.tensor([rest, 1 - rest], dtype=torch.float64) * (rows.shape[1] - 1)
    low, high = (ordered[:, int(place.round())] for place in places)
    return low, high


def least_squares(rows: Tensor, bits: int = 8, symmetric: bool = True) -> tuple[Tensor, Tensor]:
    """Of the whole range and narrower ones in its proportions, the one with the least mean squared error, row by row.

    Args:
        rows: (scales, numbers).
        bits: of the codes; the fewer, the more there is to gain by clipping.
        symmetric: whether the codes are.
    """
    low, high = min_max(rows)
    best = torch.full_like(low, float("inf"))
    chosen = (low, high)
    for tried in range(TRIED):
        narrow = 1 - tried / TRIED
        grid = scale_and_zero(low * narrow, high * narrow, bits, symmetric)
        error = (encode(rows, *grid, bits, symmetric).dequantize() - rows).square().mean(1)
        better = error < best
        best = torch.where(better, error, best)
        chosen = tuple(torch.where(better, end * narrow, old) for end, old in zip((low, high), chosen, strict=True))
    return chosen


class Observer:
    """Sees tensors batch by batch, and then gives the grid of all of them.

    `dim` is the one of the channels, each with a scale of its own. Of `min_max` it keeps two numbers a scale, for other
    rules all that it saw.
    """

    def __init__(
        self, bits: int = 8, *, symmetric: bool = False, dim: int | None = None, find: Range = min_max
    ) -> None:
        self.bits, self.symmetric, self.dim, self.find = bits, symmetric, dim, find
        self.seen: list[Tensor] = []

    def see(self, x: Tensor) -> None:
        """Takes one more tensor into account."""
        rows = x.detach().reshape(1, -1) if self.dim is None else x.detach().movedim(self.dim, 0).flatten(1)
        self.seen.append(torch.stack(min_max(rows), 1) if self.find is min_max else rows)

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (scales,).

        Raises:
            ValueError: nothing was seen.
        """
        if not self.seen:
            raise ValueError("the observer has seen nothing: run batches of the training data through the model first")
        return scale_and_zero(*self.find(torch.cat(self.seen, 1)), self.bits, self.symmetric)


@dataclass
class Inputs:
    """What calibration keeps of the inputs x of a linear: sums over all its rows, (in, in) and (in,), in float64."""

    moment: Tensor  # the sum of x x^T
    size: Tensor  # the sum of |x|
    rows: int = 0

    def see(self, x: Tensor) -> None:
        """Adds the rows of x (..., in)."""
        x = x.detach().flatten(0, -2).double()
        self.moment += x.T @ x
        self.size += x.abs().sum(0)
        self.rows += len(x)


@torch.no_grad()
def collect(model: nn.Module, batches: Iterable[Batch], only: str | None = None) -> dict[str, Inputs]:
    """By name what the model's linears, or one of them, are given for these batches of *training* data.

    Raises:
        ValueError: there are no batches.
    """
    found, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and only in (None, name):
            like = module.weight.new_zeros(module.in_features, dtype=torch.float64)
            found[name] = Inputs(like.outer(like), like)
            hooks.append(module.register_forward_pre_hook(lambda _, args, own=found[name]: own.see(args[0])))
    _run(model, batches, hooks)
    return found


@torch.no_grad()
def round_inputs(model: nn.Module, batches: Iterable[Batch], find: Range = min_max) -> nn.Module:
    """A copy of a model of `QuantizedLinear`s that round their inputs to 8 bits, on grids that these batches give.

    Raises:
        ValueError: there are no batches.
    """
    model = deepcopy(model)
    linears = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    observers = [Observer(find=find) for _ in linears]
    hooks = [
        linear.register_forward_pre_hook(lambda module, args, own=own: own.see(module.scaled(args[0])))
        for linear, own in zip(linears, observers, strict=True)
    ]
    _run(model, batches, hooks)
    for linear, observer in zip(linears, observers, strict=True):
        linear.rounds(*observer.grid())
    return model


def _run(model: nn.Module, batches: Iterable[Batch], hooks: list) -> None:
    count = 0
    try:
        for count, batch in enumerate(batches, 1):
            model(to_model(model, batch)[0])
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise ValueError("no batches to calibrate with")
