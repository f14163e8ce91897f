"""The gaps of chapter 06: how many ranks a model needs, a step of stage 2, and the rows of a rank."""

import torch

from parallel_lab.grading import expect
from parallel_lab.grading.exercise import Exercise, changed_on, on
from parallel_lab.grading.gaps.forms import function_gap, is_not

STAGES = ((16, 0), (4, 12), (2, 14), (0, 16))  # bytes per parameter that are whole, and those cut by n
LENGTH = 1200  # divides by 2, 3 and 4
DIVIDE = "A reduce-scatter sums. What does the update divide by?"
TWO = "A rank needs the mean of its own part only, and that is what a reduce-scatter leaves: half an all-reduce."


def ranks_needed(parameters, stage, memory_bytes):
    """The fewest ranks on which a stage's model states fit in mixed precision; None if none are enough."""
    whole, cut = (each * parameters for each in STAGES[stage])
    if whole + cut <= memory_bytes:
        return 1
    return -(-cut // (memory_bytes - whole)) if cut and memory_bytes > whole else None


def row_bounds(rows, n, rank):
    """First row and end of a rank's shard, as `torch.chunk` cuts: equal pieces, and the last ones get what is left."""
    piece = -(-rows // n)
    return min(rank * piece, rows), min((rank + 1) * piece, rows)


def _without_limit(parameters, stage, memory_bytes):
    return max(1, -(-16 * parameters // memory_bytes))


def _evenly(rows, n, rank):
    return rank * (rows // n) + min(rank, rows % n), (rank + 1) * (rows // n) + min(rank + 1, rows % n)


def _step(outcome, divisor):
    weights, _, lr = outcome.inputs[0]
    return weights - lr * sum(given[1] for given in outcome.inputs) / divisor


B = 1_000_000_000
GAPS = (
    function_gap(
        ranks_needed,
        tests={
            "Stage 3 cuts everything": [(70 * B, 3, 80 * B), (B, 3, 80 * B), (405 * B, 3, 141 * B)],
            "Stages 1 and 2 keep something whole": [
                (7 * B, 1, 80 * B),
                (13 * B, 1, 80 * B),
                (13 * B, 2, 80 * B),
                (30 * B, 2, 80 * B),
                (5 * B, 2, 24 * B),
            ],
            "And some models fit on no number of ranks": [
                (70 * B, 1, 80 * B),
                (70 * B, 2, 80 * B),
                (7 * B, 0, 80 * B),
                (4 * B, 0, 80 * B),
                (40 * B, 2, 80 * B),
            ],
        },
        mistakes={
            "That cuts all 16 bytes. Which of them are whole on each rank in this stage?": _without_limit,
            "Stage 2 cuts the gradients as well, and keeps 2 bytes per parameter whole.": (
                lambda parameters, stage, memory_bytes: ranks_needed(
                    parameters, 1 if stage == 2 else stage, memory_bytes
                )
            ),
        },
    ),
    Exercise(
        name="sharded_step",
        gap=True,
        given=lambda case, rank, generator: (
            torch.linspace(-1, 1, LENGTH, dtype=torch.float64),
            torch.randn(LENGTH, generator=generator, dtype=torch.float64),
            0.1,
        ),
        expected=lambda outcome: [_step(outcome, outcome.ranks)] * outcome.ranks,
        tests={
            "Every rank returns all weights after a step with the mean gradient, at 1 to 4 ranks": on(
                (1, 2, 3, 4),
                is_not("the step of the summed gradients", lambda outcome: _step(outcome, 1), DIVIDE),
                expect.equals("The weights less lr times the mean of the ranks' gradients, on every rank."),
                expect.keeps_input(),
            ),
            "Each rank gets the mean of its own part alone, and gathers what all have updated": [
                *on((2, 4), expect.calls("reduce_scatter", "all_gather", advice=TWO)),
                *changed_on(2),
            ],
        },
    ),
    function_gap(
        row_bounds,
        tests={
            "Where n divides the rows": [(64, n, rank) for n in (1, 2, 4) for rank in range(n)],
            "Where it does not": [(rows, n, rank) for rows, n in ((64, 3), (10, 4), (7, 3)) for rank in range(n)],
            "Where there are few rows: the last ranks have fewer, or none": [
                (rows, n, rank) for rows, n in ((5, 4), (3, 4), (1, 2)) for rank in range(n)
            ],
        },
        mistakes={
            "These differ by one row at most, as `tensor_split` cuts. `chunk` makes all pieces but the last equal.": (
                _evenly
            ),
            "There are no more rows than `rows`: where does the last piece end?": (
                lambda rows, n, rank: (rank * -(-rows // n), (rank + 1) * -(-rows // n))
            ),
        },
    ),
)
