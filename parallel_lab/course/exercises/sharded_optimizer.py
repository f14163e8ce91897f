"""Chapter 06: an optimizer whose state is cut over the ranks (Rajbhandari et al. 2020, "ZeRO", section 5.1).

Each rank keeps the state of 1/n of the flat parameter vector, updates that part, and an all-gather hands everybody the
rest: Adam's two moments take 2/n of the parameters' bytes a rank, for (n-1)/n of the parameters sent a step.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import nn

from parallel_lab.course.driving import step_optimizer, tensors
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.training_checks import (
    ITEM_BYTES,
    expect_held,
    expect_traffic,
    expect_used,
    same_tensors,
)

ADAM: tuple[type, dict[str, Any]] = (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1})
MOMENTUM: tuple[type, dict[str, Any]] = (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9})
MIXED = ((4, 5), (7,), (3, 2, 2))  # 39 elements
FEW = ((2,), (1,))  # fewer elements than 4 ranks
BIG = ((9,), (300, 40), (5, 10))  # one tensor is nearly everything: whole tensors cannot be shared out evenly
BIG_BYTES = sum(prod(shape) for shape in BIG) * ITEM_BYTES
SLACK_BYTES = 2000
COPIES = 4  # a shard of the parameters, of the gradients, and two moments


def _run(fn: Callable, lab: Lab, ranks: int, shapes=MIXED, kind=ADAM, garbled: bool = False) -> Outcome:
    optimizer_class, options = kind
    driver = partial(step_optimizer, fn, optimizer_class=optimizer_class, options=options, garbled=garbled)
    driver = partial(driver, most_bytes=_most_bytes(shapes, ranks))
    make = partial(tensors, shapes=shapes, steps=3)
    return lab.run(driver, ranks, make, key=(shapes, optimizer_class, garbled))


def _most_bytes(shapes, ranks: int) -> float:
    return COPIES * sum(prod(shape) for shape in shapes) * ITEM_BYTES / ranks + SLACK_BYTES


def _expected(outcome: Outcome, kind) -> list:
    """The parameters after each step of torch's own optimizer in one process."""
    optimizer_class, options = kind
    values, gradients = outcome.inputs[0]
    parameters = [nn.Parameter(value.clone()) for value in values]
    optimizer, after = optimizer_class(parameters, **options), []
    for step in gradients:
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
        after.append([p.detach().clone() for p in parameters])
    return after


def _right(outcome: Outcome, kind=ADAM) -> None:
    expected = _expected(outcome, kind)
    for rank, (seen, cleared, _) in enumerate(outcome.results):
        where = f"{outcome.at}: rank {rank}"
        for step, (got, right) in enumerate(zip(seen, expected, strict=True)):
            advice = "After step() every rank has all parameters, as the optimizer in one process leaves them."
            same_tensors(got, right, f"{where}, after step {step}", "parameter", advice)
        if not all(cleared):
            raise Wrong(f"{where}: zero_grad() left a gradient", "Those of the parameters that you were given.")


def numbers(fn: Callable, lab: Lab) -> None:
    """AdamW and SGD with momentum step as in one process, at 1 to 4 ranks."""
    for ranks, shapes in ((1, MIXED), (2, MIXED), (3, BIG), (4, BIG)):
        _right(_run(fn, lab, ranks, shapes))
    _right(_run(fn, lab, 2, kind=MOMENTUM), MOMENTUM)


def uneven(fn: Callable, lab: Lab) -> None:
    """Sizes that do not divide by the number of ranks work, even fewer elements than ranks."""
    _right(_run(fn, lab, 4, FEW))
    _right(_run(fn, lab, 2))


def held(fn: Callable, lab: Lab) -> None:
    """Each rank keeps 1/n of the state, even where one tensor is nearly everything."""
    for ranks in (3, 4):
        outcome = _run(fn, lab, ranks, BIG)
        for rank, (_, _, kept) in enumerate(outcome.results):
            what = f"and 1/{ranks} of two moments, a copy of the parameters and one of the gradients is"
            advice = "Who holds both moments of all parameters, or a whole copy of them, does not shard."
            at = f"{outcome.at}: rank {rank}, beside parameters and gradients,"
            expect_held(at, kept, _most_bytes(BIG, ranks), what, advice)


def traffic(fn: Callable, lab: Lab) -> None:
    """Each rank sends (n-1)/n of the parameters a step, and they carry the data."""
    for ranks in (3, 4):
        outcome = _run(fn, lab, ranks, BIG)
        share = (ranks - 1) * BIG_BYTES / ranks
        slack = 2 * ranks * ITEM_BYTES
        advice = "The gradients are averaged already: only what a rank has updated has to travel."
        expect_traffic(outcome, share - slack, share + slack, "an all-gather of the parameters sends", advice)
    garbled = _run(fn, lab, 2, garbled=True)
    expect_used(garbled, lambda: _right(garbled))


EXERCISE = Exercise(
    name="sharded_optimizer",
    title="An optimizer with sharded state (ZeRO-1)",
    level="medium",
    minutes=40,
    tests=(numbers, uneven, held, traffic),
    notebook="06_sharded_data_parallel",
)
