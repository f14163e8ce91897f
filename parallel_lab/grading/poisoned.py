"""The task of chapter 19 on poisoned gradients: rows of which some are lies, and a mean that they cannot move at will.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module, so it computes in
plain torch what is right, from all ranks' inputs, and what the usual mistakes come to.
"""

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.drivers import mark
from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.rank_side import Case, change_first_arrival, name, plain

CALL = ("call", "call_over")  # the driver's marks round each call
MEAN = "the robust mean"
REFUSED = "ValueError"
LIES = {"300": 300.0, "1e30": 1e30, "infinity": math.inf, "NaN": math.nan}


def rows(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """A gradient of `width` numbers in float64. The ranks `liars` have lies of the kind `lie`, in words.

    A lie is too large in some coordinates, too small in others, and within the honest spread in the rest.
    """
    size = 10.0 ** torch.linspace(-2, 2, case["width"], dtype=torch.float64)
    row = (1 + torch.randn(case["width"], generator=generator, dtype=torch.float64)) * size
    if rank in case["liars"]:
        draw, lie = torch.rand(case["width"], generator=generator), LIES[case["lie"]] * size
        row = torch.where(draw < 0.4, lie, torch.where(draw < 0.8, -lie, row))
    return (row,)


def average(fn: Callable, case: Case, row: Tensor) -> dict:
    """`fn(gradient, f)`: what it returned, or that it raised ValueError."""
    change_first_arrival(case)
    dist.barrier()
    mark(CALL[0])
    try:
        got = fn(row.clone(), case["f"])
    except ValueError:
        if _enough(case):
            raise
        got = REFUSED
    mark(CALL[1])
    if type(got) is not Tensor and got is not REFUSED:
        seen = name(got if isinstance(got, tuple) else plain(got))
        raise TypeError(f"the function returned {seen}: expected a tensor like the gradient")
    return {MEAN: got}


def _enough(case: Case) -> bool:
    return case.ranks > 2 * case["f"]


def averaged(outcome: Outcome) -> list[dict]:
    """What every rank should return; with the setting `mistake`, what a usual mistake comes to."""
    case, all_rows = outcome.case, torch.stack([row for (row,) in outcome.inputs])
    if not _enough(case):
        return [{MEAN: REFUSED}] * outcome.ranks
    if (only := case.get("only")) is not None:
        return [{MEAN: all_rows[only]}] * outcome.ranks
    made = MISTAKES.get(case.get("mistake", ""), trimmed)
    return [{MEAN: made(all_rows, case["f"])}] * outcome.ranks


def trimmed(rows: Tensor, f: int) -> Tensor:
    """Of each coordinate the mean without the f largest and the f smallest values; NaN counts as the largest."""
    return rows.sort(0).values[f : len(rows) - f].mean(0)


def _without_longest(rows: Tensor, f: int) -> Tensor:
    return rows[rows.norm(dim=1).argsort()[: len(rows) - f]].mean(0)


def _without_largest(rows: Tensor, f: int) -> Tensor:
    kept = rows.abs().argsort(0)[: len(rows) - f]
    return rows.gather(0, kept).mean(0)


def _over_all(rows: Tensor, f: int) -> Tensor:
    return trimmed(rows, f) * (len(rows) - 2 * f) / len(rows)


MISTAKES = {
    "mean": lambda rows, f: rows.mean(0),
    "median": lambda rows, f: rows.quantile(0.5, dim=0),
    "rows": _without_longest,
    "one side": _without_largest,
    "divisor": _over_all,
}
