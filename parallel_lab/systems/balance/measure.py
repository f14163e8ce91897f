"""A way to balance, measured on real ranks with a slow one: who did what, how long, who waited; and the gradient.

A way is a function of (items, counters), run on each rank, that gives an iterable of this rank's items. The slow rank
is emulated by `Delay` (see `device`); nothing else is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from parallel_lab.model.data import Batch
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss
from parallel_lab.runtime import Run, launch
from parallel_lab.systems.balance.device import Device, delays
from parallel_lab.systems.balance.gradient import Done, shared_gradient
from parallel_lab.systems.balance.sequences import Groups
from parallel_lab.systems.balance.shares import bounds
from parallel_lab.systems.balance.stealing import Deques
from parallel_lab.systems.balance.work_queue import Counters, Pieces, singles, work_queue
from parallel_lab.trace.units import format_seconds, format_share, table

Way = Callable[[int, Counters], Iterable[int]]


def shared(shares: Sequence[int]) -> Way:
    """Static: rank r does the r-th contiguous share."""
    return lambda items, counters: range(*bounds(shares)[counters.group.rank()])


def dealt(groups: Groups) -> Way:
    """Static: rank r does the items of group r."""
    return lambda items, counters: groups[counters.group.rank()]


def queued(pieces: Callable[[int, int], Pieces] = singles) -> Way:
    """Dynamic: who is free takes the next piece."""
    return lambda items, counters: work_queue(items, counters, pieces=pieces)


def stolen(shares: Sequence[int]) -> Way:
    """Dynamic: shares at first, and who has nothing left steals."""
    return lambda items, counters: Deques(shares, counters)


@dataclass(frozen=True)
class Measured:
    """What each rank did, and what came of it. Its text is a table.

    Attributes:
        done: by rank.
        gradients: of each rank, all parameters in one vector.
        run: with its trace, to draw.
    """

    done: tuple[Done, ...]
    gradients: tuple[Tensor, ...]
    run: Run

    @property
    def step_s(self) -> float:
        """Seconds until the slowest was done."""
        return max(each.busy_s for each in self.done)

    @property
    def waiting(self) -> float:
        """The share of all ranks' time in which they wait for the slowest."""
        return 1 - sum(each.busy_s for each in self.done) / (len(self.done) * self.step_s)

    def __str__(self) -> str:
        rows = {
            "rank": [str(rank) for rank in range(len(self.done))],
            "items": [str(len(each.items)) for each in self.done],
            "units": [str(each.units) for each in self.done],
            "busy": [format_seconds(each.busy_s) for each in self.done],
        }
        return f"{table(rows)}\nstep {format_seconds(self.step_s)}, waiting {format_share(self.waiting)}"


def measure(
    way: Way,
    model: nn.Module,
    batch: Sequence[Batch],
    unit_s: Sequence[float],
    *,
    units: Sequence[int] | None = None,
    loss: Loss = cross_entropy,
) -> Measured:
    """Computes the gradient of `batch` once on real ranks, `len(unit_s)` of them, balanced in this way.

    Args:
        way: who does what.
        model: each rank gets a copy.
        batch: the microbatches of the global batch.
        unit_s: how long a unit of work takes on each rank; the emulated device sleeps as long.
        units: how many units each microbatch is, one by default.
        loss: of (outputs, targets).
    """
    body = partial(_step, way, model, batch, units, loss)
    run = launch(body, ranks=len(unit_s), faults=delays(unit_s), device="cpu")
    return Measured(tuple(done for done, _ in run.results), tuple(gradient for _, gradient in run.results), run)


def _step(way: Way, model: nn.Module, batch: Sequence[Batch], units: Sequence[int] | None, loss: Loss) -> tuple:
    with Counters() as counters:
        device = Device()
        done = shared_gradient(model, batch, way(len(batch), counters), loss=loss, units=units, device=device)
    return done, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
