"""Chapter 02: all-reduce by a ring, reduce-scatter followed by all-gather (Patarasuk and Yuan 2009).

Each rank sends 2 (n-1)/n S bytes in 2 (n-1) messages, all to one neighbor: no all-reduce sends fewer bytes.
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
LENGTH = 12_000  # divides by 2, 3 and 4
UNEVEN = (
    (3, (7,)),
    (4, (5, 3)),
    (2, (1,)),
    (3, (2,)),
    (4, (3, 1, 7)),
)  # (ranks, shape); also fewer elements than ranks


def _expected(outcome: Outcome) -> list:
    return [torch.stack([given[0] for given in outcome.inputs]).sum(0)] * outcome.ranks


def _run(fn: Callable, lab: Lab, ranks: int, shape: tuple[int, ...] = (LENGTH,), **options) -> Outcome:
    return lab.run(fn, ranks, partial(inputs.normal, shape=shape), key=None if options else shape, **options)


def _right(outcome: Outcome) -> None:
    right_everywhere(outcome, _expected(outcome), "Return the sum over all ranks.")


def numbers(fn: Callable, lab: Lab) -> None:
    """Every rank returns the sum, at 1 to 4 ranks, and leaves its input alone."""
    for ranks in WORLDS:
        outcome = _run(fn, lab, ranks)
        _right(outcome)
        unchanged(outcome)


def uneven(fn: Callable, lab: Lab) -> None:
    """Sizes that do not divide by the number of ranks work, and keep their shape."""
    for ranks, shape in UNEVEN:
        _right(_run(fn, lab, ranks, shape))


def messages_only(fn: Callable, lab: Lab) -> None:
    """It is built from messages, and they carry the data."""
    outcome = _run(fn, lab, 3)
    forbid(outcome)
    expect_travel(outcome, lambda rank: LENGTH * ITEM_BYTES, "in any all-reduce a rank")
    garbled = _run(fn, lab, 3, garble=True)
    expect_heard(garbled, _expected(garbled))


def ring_bytes(fn: Callable, lab: Lab) -> None:
    """Each rank sends 2 (n-1)/n of the tensor, and no more."""
    for ranks in WORLDS[1:]:
        outcome = _run(fn, lab, ranks)
        _right(outcome)
        forbid(outcome)
        least_bytes = 2 * (ranks - 1) * (LENGTH // ranks) * ITEM_BYTES
        advice = "Which part of the tensor does the neighbor really need in this round?"
        expect_bytes(outcome, lambda rank, most=least_bytes: most, "a ring sends", advice)
        expect_travel(outcome, lambda rank, least=least_bytes: least, "a ring's rank")


def ring_messages(fn: Callable, lab: Lab) -> None:
    """Each rank sends 2 (n-1) messages, all to one neighbor."""
    for ranks in WORLDS[1:]:
        outcome = _run(fn, lab, ranks)
        _right(outcome)
        forbid(outcome)
        advice = "A ring needs nothing between its rounds: a message received is itself the signal to go on."
        expect_messages(outcome, lambda rank, ranks=ranks: 2 * (ranks - 1), "a ring sends", advice)
        for rank in range(ranks):
            if len(to := peers(outcome.trace, rank)) > 1:
                seen = f"rank {rank} sent to ranks {', '.join(map(str, sorted(to)))}; in a ring it sends to one"
                raise Wrong(f"{outcome.at}: {seen}", "On a real ring of cables only the neighbor is one hop away.")


EXERCISE = Exercise(
    name="ring_all_reduce",
    title="All-reduce by a ring",
    level="medium",
    minutes=40,
    tests=(numbers, uneven, messages_only, ring_bytes, ring_messages),
    notebook="02_collectives",
)
