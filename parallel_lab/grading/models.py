"""The models that drivers train: they note in the trace when each layer is called, and when its gradient comes back.

Notes are marks on a lane of their own, in one order with the collectives, so that "was this all-reduce issued before
that layer's backward?" needs no clock. Ranks import this module.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from parallel_lab.trace import recorder
from parallel_lab.trace.span import MARK

# note(kind, part): called by layer `part` at its forward (`layer_forward`) and backward (`layer_backward`), and by a
# `Chain` with the number of rows that it is given (`rows`)
Note = Callable[[str, int], None]


def mark(kind: str, part: int = -1) -> None:
    """Notes in this rank's trace that `kind` happens now, at layer `part`, or with so many rows."""
    log = recorder()
    log.complete(log.issue(kind, part=part, lane=MARK))


def silent(kind: str, part: int) -> None:
    """Notes nothing: for the kernel's own model."""


class _Probe(torch.autograd.Function):
    """The identity; tells `note` when it is passed forward and when its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, part: int, note: Note) -> Tensor:
        ctx.part, ctx.note = part, note
        note("layer_forward", part)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.note("layer_backward", ctx.part)
        return *gradients, None, None


class ProbedLinear(nn.Linear):
    """A float64 linear layer, (rows, inputs) to (rows, outputs), that calls `note` at its forward and its backward.

    A copy of it notes the same way, and so do its weights put in other tensors (`torch.func.functional_call`).
    """

    def __init__(self, inputs: int, outputs: int, part: int = 0, note: Note = mark) -> None:
        super().__init__(inputs, outputs, dtype=torch.float64)
        self.part, self.note = part, note

    def forward(self, input: Tensor) -> Tensor:
        """X W^T + b, noted."""
        return cast(Tensor, _Probe.apply(super().forward(input), self.part, self.note))


class Chain(nn.Module):
    """`ProbedLinear` layers with tanh between each two; `widths` as of `model.mlp.MLP`.

    With `tied` the layers 1 and 2 share one weight (equal widths needed), and the bias of layer 0 does not learn.
    """

    def __init__(self, widths: Sequence[int], tied: bool = False, note: Note = mark) -> None:
        super().__init__()
        self.note = note
        self.layers = nn.ModuleList(ProbedLinear(*pair, part, note) for part, pair in enumerate(pairwise(widths)))
        if tied:
            self.layers[2].weight = self.layers[1].weight
            cast(Tensor, self.layers[0].bias).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, widths[0]) to (rows, widths[-1])."""
        self.note("rows", len(x))
        return through(self.layers, x)


def through(layers: Sequence[nn.Module] | nn.ModuleList, x: Tensor) -> Tensor:
    """X passed through `layers`, with tanh between each two."""
    for part, layer in enumerate(layers):
        x = layer(torch.tanh(x) if part else x)
    return x


def load(module: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
    """`module` with `weights`, in the order of its `parameters()`, copied in; returns it."""
    with torch.no_grad():
        for parameter, weight in zip(module.to(weights[0].device).parameters(), weights, strict=True):
            parameter.copy_(weight)
    return module
