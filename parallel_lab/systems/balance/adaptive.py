"""Training whose shares follow the speeds that are measured: every few steps a new cut, and samples that move for it.

Each rank holds its contiguous share of the samples, and a step is the gradient of all of them. After `every` steps the
ranks exchange their speeds (`shares.Meter`), and what changes its owner travels (`shares.redistribute`). The gradient
counts by samples, so training is that of one process whatever the cuts were.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss
from parallel_lab.systems.balance.device import Device
from parallel_lab.systems.balance.gradient import shared_gradient
from parallel_lab.systems.balance.shares import Meter, bounds, moved, redistribute


class Step(NamedTuple):
    """One step of this rank."""

    shares: list[int]  # of all ranks
    busy_s: float  # this rank's own work
    moved: int  # samples that changed their owner after it


def adaptive(
    model: nn.Module,
    samples: tuple[Tensor, Tensor],
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    steps: int,
    every: int = 5,
    loss: Loss = cross_entropy,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs: float,
) -> list[Step]:
    """Trains `model` in place on all samples in every step; a sample is a unit of work for the emulated device.

    Args:
        model: the same on all ranks.
        samples: inputs and targets, the same on all ranks; each keeps its share of them.
        optimizer_class: of the optimizer, which each rank makes for itself.
        steps: how many.
        every: after how many steps speeds are measured and the cut is made anew.
        loss: of (outputs, targets), a mean, or a tuple (sum, count).
        group: whose ranks share the samples; by default all.
        **optimizer_kwargs: of the optimizer.
    """
    meter, device = Meter(len(samples[0]), every=every, group=group), Device(group=group)
    first, stop = bounds(meter.shares)[meter.group.rank()]
    own, seen = [part[first:stop] for part in samples], []
    optimizer = optimizer_class(model.parameters(), **optimizer_kwargs)
    for _ in range(steps):
        batch = list(zip(*(part.split(1) for part in own), strict=True))
        done = shared_gradient(model, batch, range(len(batch)), loss=loss, device=device, group=group)
        optimizer.step()
        old = meter.shares
        if meter.step(done.busy_s):
            own = [redistribute(part, old, meter.shares, group=group) for part in own]
        seen.append(Step(old, done.busy_s, moved(old, meter.shares)))
    return seen
