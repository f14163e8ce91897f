"""Inside a rank in the last task of chapter 09: a stage of a pipeline each; and what one process would have come to.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.drivers import copies, from_rank_0
from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.rank_side import Case, change_first_arrival
from parallel_lab.trace.memory import SavedTensors

WIDTH = 5
LOSS, GRADIENT, AFTER = "the loss", "the gradient of parameter", "after the call: parameter"
HELD = "the most microbatches held at once"


def stage_data(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Microbatches of `sizes` rows and their targets, both in float64, and the weights of this rank's stage."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inputs, targets = ([drawn(size, WIDTH) for size in case["sizes"]] for _ in range(2))
    return inputs, targets, [drawn(WIDTH, WIDTH) / WIDTH**0.5, drawn(WIDTH)]


def stage_of(weights: list[Tensor]) -> nn.Module:
    """A linear and a tanh, with copies of `weights`."""
    stage = nn.Sequential(nn.Linear(WIDTH, WIDTH, dtype=torch.float64), nn.Tanh())
    for parameter, weight in zip(stage.parameters(), weights, strict=True):
        parameter.data = weight.clone()
    return stage


def run_stage(fn: Callable, case: Case, inputs: list, targets: list, weights: list) -> dict:
    """`fn(row, stage, inputs, targets)`, with rank 0's data on every rank; what it left."""
    inputs, targets = from_rank_0(inputs), from_rank_0(targets)
    stage, row = stage_of(weights), list(case["rows"][torch.distributed.get_rank()])
    change_first_arrival(case)
    with SavedTensors(stage) as saved:
        loss = fn(row, stage, inputs, targets)
    one_bytes = 2 * inputs[0].nbytes  # what linear and tanh save of a microbatch
    return {
        LOSS: float(loss) if isinstance(loss, Tensor) and loss.numel() == 1 else loss,
        GRADIENT: copies(p.grad for p in stage.parameters()),
        AFTER: copies(stage.parameters()),
        HELD: saved.peak_bytes // one_bytes,
    }


def one_process(outcome: Outcome) -> list[dict]:
    """Of `run_stage`: all stages in a chain, with the whole batch."""
    stages = [stage_of(weights) for _, _, weights in outcome.inputs]
    inputs, targets, _ = outcome.inputs[0]
    loss = F.mse_loss(nn.Sequential(*stages)(torch.cat(inputs)), torch.cat(targets))
    loss.backward()
    right = [
        {LOSS: loss.item(), GRADIENT: copies(p.grad for p in stage.parameters()), AFTER: copies(stage.parameters())}
        for stage in stages
    ]
    holds = outcome.case.get("holds")
    return [{**each, HELD: held} for each, held in zip(right, holds, strict=True)] if holds else right
