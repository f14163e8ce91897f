"""Chapter 09: a pipeline's data flow and control flow, question AC3 (Huang et al. 2019; Narayanan et al. 2021)."""

from collections.abc import Callable
from typing import Any

from parallel_lab.grading import expect, stages
from parallel_lab.grading.exercise import Exercise, changed_on, on
from parallel_lab.pipeline import gpipe, one_f_one_b
from parallel_lab.plan import Plan

GRADIENTS = "Does each backward begin with the gradient that the next stage sent, and with that of the same microbatch?"
LOSSES = "It is the mean over the whole batch, and the last stage alone knows it: how do the other ranks get it?"
WEIGHTS = "The step of the optimizer is the caller's: all microbatches of a batch see the same weights."
HOLDING = "Follow the row: after a backward nothing of that microbatch is needed any more. Who still refers to it?"


def rows(schedule: Callable[[int, int], Plan], *sizes: int) -> Callable[[int], dict[str, Any]]:
    """Cases of `ranks` for the microbatches of `sizes` rows."""

    def at(ranks: int) -> dict[str, Any]:
        plan = schedule(ranks, len(sizes))
        words = tuple(tuple(f"{op.kind}{op.mb}" for op in row) for row in plan.rows)
        return {"ranks": ranks, "rows": words, "sizes": sizes}

    return at


one, gpipes, uneven = rows(gpipe, 3), rows(gpipe, 2, 2, 2, 2), rows(gpipe, 1, 4, 2)
alternating, short = rows(one_f_one_b, 2, 2, 2, 2, 2, 2), rows(one_f_one_b, 2, 1)
holding = [alternating(p) | {"holds": tuple(p - stage for stage in range(p))} for p in (2, 3)]

EXERCISE = Exercise(
    name="pipeline_executor",
    given=stages.stage_data,
    drive=stages.run_stage,
    expected=stages.one_process,
    device="cpu",
    always=(
        expect.equals({stages.LOSS: LOSSES, stages.GRADIENT: GRADIENTS, stages.AFTER: WEIGHTS, stages.HELD: HOLDING}),
    ),
    tests={
        # Step 1
        "One microbatch goes down the stages and its gradient comes back, at 1, 2 and 3 ranks": (
            on(map(one, (1, 2, 3))) + changed_on(2, **{k: v for k, v in one(2).items() if k != "ranks"})
        ),
        # Step 2
        "The gradients of several microbatches add up, and every rank has the loss": on(map(gpipes, (2, 3))),
        "Microbatches of uneven sizes: each row counts the same": on(map(uneven, (2, 3))),
        # Step 3
        "In the order of 1F1B neighbors send to each other at once, and nobody waits for ever": on(
            map(alternating, (2, 4))
        ),
        "Stage i holds p - i microbatches, however many there are": on(holding),
        "Fewer microbatches than stages": on([short(4)]),
    },
)
