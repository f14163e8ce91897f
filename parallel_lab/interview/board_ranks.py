"""What ranks of the whiteboard run. It loads neither pictures nor widgets, so that ranks need not."""

import ast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.interview.statements import value_of
from parallel_lab.pipeline import stages_of, step, with_needs

WHERE = "<whiteboard>"  # where the lines of a learner stand, in messages
WIDTH, ROWS = 8, 4  # of the layer that stands for a stage, and of a microbatch


def run_lines(source: str) -> str:
    """On a rank: runs the lines, and returns what the last one comes to, as text; empty for a statement."""
    space = {"__name__": "__whiteboard__", "torch": torch, "dist": dist}
    space |= {"rank": dist.get_rank(), "n": dist.get_world_size()}
    value = value_of(ast.parse(source, WHERE), source, WHERE, space)
    return "" if value is None else repr(value)


def one_step(rows: tuple, m: int) -> tuple[float, dict[int, Tensor]]:
    """On a rank: one step of the schedule; the loss, and the gradient of each stage that this rank holds."""
    plan = with_needs(rows)
    mine = {stage: layer(stage) for stage in stages_of(plan, dist.get_rank())}
    loss = step(plan, mine, *batch(m), squares)
    return float(loss.item()), {stage: gradient(one) for stage, one in mine.items()}


def alone(stages: int, m: int) -> tuple[float, dict[int, Tensor]]:
    """In one process: the loss and the gradients of all stages."""
    layers = [layer(stage) for stage in range(stages)]
    inputs, targets = batch(m)
    output = nn.Sequential(*layers)(torch.cat(inputs))
    loss = squares(output, torch.cat(targets)) / output.numel()
    loss.backward()
    return float(loss.item()), {stage: gradient(one) for stage, one in enumerate(layers)}


def gradient(of: nn.Linear) -> Tensor:
    """The gradient of a stage's weights."""
    assert of.weight.grad is not None
    return of.weight.grad


def layer(stage: int) -> nn.Linear:
    """The layer that stands for a stage."""
    torch.manual_seed(stage)
    return nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64)


def batch(m: int) -> tuple[list[Tensor], list[Tensor]]:
    """Microbatches and their targets."""
    drawn = torch.Generator().manual_seed(m)
    inputs, targets = torch.randn(2, m, ROWS, WIDTH, generator=drawn, dtype=torch.float64)
    return list(inputs), list(targets)


def squares(output: Tensor, target: Tensor) -> Tensor:
    """The sum of squared differences."""
    return (output - target).square().sum()
