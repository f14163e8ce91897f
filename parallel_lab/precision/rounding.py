"""Small updates of 16-bit weights without a float32 copy: rounding by chance, or a second number for what was lost.

Rounded to nearest, an update below half a step of the weight's format is lost, each time anew. Gupta et al. 2015, "Deep
learning with limited numerical precision", section 3: rounded up with a chance that is the share of the step, it is
right in the mean. Kahan 1965, "Further remarks on reducing truncation errors": what an addition lost is computed, kept
and added to the next. Zamirai et al. 2020, "Revisiting BFloat16 training", train with either.

    held per rank          stochastic: nothing more; Kahan: 2 bytes a weight, where a float32 master takes 4
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from parallel_lab.precision.formats import Format, format_of


def stochastic_round(x: Tensor, dtype: torch.dtype | Format, generator: torch.Generator | None = None) -> Tensor:
    """`x` in `dtype`: of its two neighbors there the upper with a chance of (x - lower) / (upper - lower).

    Numbers of the format stay what they are, and what is beyond the largest is as in a cast.

    Args:
        x: in float32 or narrower.
        dtype: torch's, or a `Format`; of one that torch lacks, the result is float32.
        generator: draws the chances; ranks that hold copies of a weight need the same one.
    """
    format = format_of(dtype)
    steps, exponent = format.steps(x)
    chance = torch.rand(x.shape, dtype=torch.float64, device=x.device, generator=generator)
    codes = format.codes((steps + chance).floor(), exponent, x.detach())
    return format.decode(codes).to(format.dtype or torch.float32)


def kahan_sum(tensors: Iterable[Tensor]) -> Tensor:
    """The sum in the tensors' own dtype, from the first to the last, with a second number for what additions lose.

    Raises:
        ValueError: there are none.
    """
    total: Tensor | None = None
    lost = torch.zeros(())
    for x in tensors:
        if total is None:
            total, lost = x.clone(), torch.zeros_like(x)
        else:
            total, lost = add(total, x, lost)
    if total is None:
        raise ValueError("a sum of no tensors has no shape: give at least one")
    return total


def add(total: Tensor, x: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    """The new total, and what it has too much; `lost` is what it had before."""
    wanted = x - lost
    grown = total + wanted
    return grown, (grown - total) - wanted


class KahanSGD(torch.optim.Optimizer):
    """SGD, with momentum, for 16-bit parameters: all in their dtype; updates are lost from u^2 of the weight down.

    Args:
        params: as of any optimizer.
        lr: the learning rate.
        momentum: of the moving sum of gradients.
    """

    def __init__(self, params: Any, lr: float, *, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step; returns what `closure`, called first, returned."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, p.grad, group["lr"], group["momentum"])
        return loss

    def _step(self, p: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
        state = self.state[p]
        if momentum:
            state["momentum"] = gradient = state.get("momentum", torch.zeros_like(p)) * momentum + gradient
        grown, state["lost"] = add(p, -lr * gradient, state.get("lost", torch.zeros_like(p)))
        p.copy_(grown)
