"""Calibration: a few batches of training data say which range a grid has to cover, and which inputs count most.

A weight's range is known; that of activations has to be seen (Jacob et al. 2018, section 3). The whole range clips
nothing, and an outlier makes its steps wide; a narrower one clips few numbers and rounds many better. Three rules: from
the least to the greatest number; all but a share of them (Wu et al. 2020, arXiv 2004.09602); or the range with the
least mean squared error (Nagel et al. 2021, arXiv 2106.08295). Calibration is a part of training: data that it has seen
measure no quality any more.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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
    """The range with the least mean squared error, row by row, of those that narrow the whole one step by step.

    First both ends come in together; where codes are not symmetric, then the lower end alone and the upper end alone.

    Args:
        rows: (scales, numbers).
        bits: of the codes; the fewer, the more there is to gain by clipping.
        symmetric: whether the codes are.
    """
    best = torch.stack(min_max(rows))  # (2, scales)
    least = torch.full_like(best[0], float("inf"))
    for moved in ((1, 1),) if symmetric else ((1, 1), (1, 0), (0, 1)):
        start = best.clone()
        for tried in range(TRIED):
            ends = start * (1 - tried / TRIED * start.new_tensor(moved)[:, None])
            made = encode(rows, *scale_and_zero(ends[0], ends[1], bits, symmetric), bits, symmetric)
            error = (made.dequantize() - rows).square().mean(1)
            best = torch.where(error < least, ends, best)
            least = torch.minimum(error, least)
    return best[0], best[1]


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

    moment: Tensor  # x^T x
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
    found: dict[str, Inputs] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and only in (None, name):
            like = module.weight.new_zeros(module.in_features, dtype=torch.float64)
            found[name] = Inputs(like.outer(like), like)
            hooks.append(module.register_forward_pre_hook(partial(_shown, found[name])))
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
    pairs = list(zip(linears, observers, strict=True))
    hooks = [linear.register_forward_pre_hook(partial(_shown, observer)) for linear, observer in pairs]
    _run(model, batches, hooks)
    for linear, observer in pairs:
        linear.rounds(*observer.grid())
    return model


def _shown(to: Observer | Inputs, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    """A hook: what a linear is about to compute with."""
    to.see(module.scaled(args[0]) if isinstance(module, QuantizedLinear) else args[0])


def _run(model: nn.Module, batches: Iterable[Batch], hooks: Sequence[RemovableHandle]) -> None:
    any_batch = False
    try:
        for batch in batches:
            model(to_model(model, batch)[0])
            any_batch = True
    finally:
        for hook in hooks:
            hook.remove()
    if not any_batch:
        raise ValueError("no batches to calibrate with")
