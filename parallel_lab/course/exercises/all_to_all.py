"""Chapter 02: all-to-all from sends and receives: the exchange behind expert parallelism and Ulysses attention.

Each rank keeps one block and sends n - 1, one to each other rank: (n-1)/n of what it holds.
"""

from collections.abc import Callable
from functools import partial

import torch

from parallel_lab.course import inputs
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import WORLDS, Lab, Outcome, Wrong
from parallel_lab.course.mechanism import (
    expect_bytes,
    expect_heard,
    expect_messages,
    expect_travel,
    forbid,
    peers,
)
from parallel_lab.course.values import right_everywhere, unchanged

ITEM_BYTES = 8  # float64
BLOCK = (40, 3)


def _expected(outcome: Outcome) -> list:
    return [[outcome.inputs[source][0][rank] for source in range(outcome.ranks)] for rank in range(outcome.ranks)]


def _run(fn: Callable, lab: Lab, ranks: int, shape: tuple[int, ...] = BLOCK, **options) -> Outcome:
    return lab.run(fn, ranks, partial(inputs.blocks, shape=shape), key=None if options else shape, **options)


def _right(outcome: Outcome) -> None:
    right_everywhere(outcome, _expected(outcome), "Item i of the result is the block that rank i had for you.")


def numbers(fn: Callable, lab: Lab) -> None:
    """Item i of each rank's result is the block that rank i had for it, at 1 to 4 ranks."""
    for ranks in WORLDS:
        outcome = _run(fn, lab, ranks)
        _right(outcome)
        unchanged(outcome)


def shapes(fn: Callable, lab: Lab) -> None:
    """Blocks of any shape are carried, and more ranks too."""
    for ranks, shape in ((3, (1,)), (4, (2, 1, 5)), (5, (7,))):
        _right(_run(fn, lab, ranks, shape))


def _block_bytes() -> int:
    return torch.Size(BLOCK).numel() * ITEM_BYTES


def messages_only(fn: Callable, lab: Lab) -> None:
    """It is built from messages, and they carry the data."""
    outcome = _run(fn, lab, 3)
    forbid(outcome)
    expect_travel(outcome, lambda rank: 2 * _block_bytes(), "in any all-to-all a rank")
    garbled = _run(fn, lab, 3, garble=True)
    expect_heard(garbled, _expected(garbled))


def only_what_is_wanted(fn: Callable, lab: Lab) -> None:
    """Each rank sends n - 1 blocks, one to each other rank, and nothing that its receiver throws away."""
    for ranks in WORLDS[1:]:
        outcome = _run(fn, lab, ranks)
        _right(outcome)
        forbid(outcome)
        most_bytes = (ranks - 1) * _block_bytes()
        advice = "Of all the blocks that you hold, which does rank i want?"
        expect_bytes(outcome, lambda rank, most=most_bytes: most, "an all-to-all sends", advice)
        expect_messages(
            outcome, lambda rank, ranks=ranks: ranks - 1, "an all-to-all sends", "One message a peer will do."
        )
        for rank in range(ranks):
            if peers(outcome.trace, rank) != set(range(ranks)) - {rank}:
                raise Wrong(
                    f"{outcome.at}: rank {rank} did not send to every other rank",
                    "Send each block straight to its owner.",
                )


EXERCISE = Exercise(
    name="all_to_all",
    title="All-to-all from sends and receives",
    level="medium",
    minutes=25,
    tests=(numbers, shapes, messages_only, only_what_is_wanted),
    notebook="02_collectives",
)
