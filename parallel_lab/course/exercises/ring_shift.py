"""Chapter 02: a shift round the ring in which every rank sends before it receives, to be mended.

A send may block until its receive is posted (MPI standard 4.0, section 3.4; gloo and NCCL do so): a program that is
right only if messages are buffered is wrong.
"""

from collections.abc import Callable
from functools import partial

from parallel_lab.course import inputs
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome
from parallel_lab.course.mechanism import (
    expect_bytes,
    expect_heard,
    expect_messages,
    expect_travel,
    forbid,
)
from parallel_lab.course.values import right_everywhere, unchanged

ITEM_BYTES = 8  # float64
LENGTH = 50_000


def _expected(outcome: Outcome) -> list:
    return [outcome.inputs[rank - 1][0] for rank in range(outcome.ranks)]


def _run(fn: Callable, lab: Lab, ranks: int, shape: tuple[int, ...] = (LENGTH,), **options) -> Outcome:
    return lab.run(fn, ranks, partial(inputs.normal, shape=shape), key=None if options else shape, **options)


def _right(outcome: Outcome) -> None:
    right_everywhere(outcome, _expected(outcome), "Rank r returns what its left neighbor, rank r - 1, had.")


def finishes(fn: Callable, lab: Lab) -> None:
    """It ends, and every rank has its left neighbor's tensor, at 2, 3, 4 and 1 ranks."""
    for ranks in (2, 3, 4, 1):
        outcome = _run(fn, lab, ranks)
        _right(outcome)
        unchanged(outcome)


def small(fn: Callable, lab: Lab) -> None:
    """It ends for small tensors of any shape too."""
    for ranks, shape in ((2, (1,)), (3, (2, 5)), (5, (3,))):
        _right(_run(fn, lab, ranks, shape))


def really_exchanged(fn: Callable, lab: Lab) -> None:
    """Every rank still sends its tensor, once."""
    for ranks in (2, 3, 4):
        outcome = _run(fn, lab, ranks)
        _right(outcome)
        forbid(outcome, advice="Mend the order of send and receive; there is no need for a collective.")
        expect_travel(outcome, lambda rank: LENGTH * ITEM_BYTES, "in any shift a rank")
        expect_bytes(outcome, lambda rank: LENGTH * ITEM_BYTES, "a shift sends", "Each rank has one neighbor to serve.")
        expect_messages(outcome, lambda rank: 1, "a shift sends", "One message a rank is enough.")
    garbled = _run(fn, lab, 3, garble=True)
    expect_heard(garbled, _expected(garbled))


EXERCISE = Exercise(
    name="ring_shift",
    title="Mend a deadlock: a shift round the ring",
    level="easy",
    minutes=10,
    tests=(finishes, small, really_exchanged),
    notebook="02_collectives",
    timeout_s=5.0,
)
