"""Chapter 02: broadcast along a binomial tree.

Every rank that has the data passes it on in each round, so the number of ranks that have it doubles: n ranks are
served in ceil(log2 n) rounds and the root sends ceil(log2 n) messages, not n - 1 (Thakur, Rabenseifner and Gropp 2005,
section 4).
"""

from collections.abc import Callable
from functools import partial

from parallel_lab.course import inputs
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import WORLDS, Lab, Outcome
from parallel_lab.course.mechanism import (
    expect_heard,
    expect_messages,
    expect_rounds,
    expect_travel,
    forbid,
)
from parallel_lab.course.values import same

ITEM_BYTES = 8  # float64
STEEP = (4, 6)  # ranks at which a star and a chain differ from a tree


def _expected(outcome: Outcome, root: int) -> list:
    return [outcome.inputs[root][0]] * outcome.ranks


def _run(fn: Callable, lab: Lab, ranks: int, shape: tuple[int, ...] = (24,), root: int = 0, **options) -> Outcome:
    key = None if options else (shape, root)
    return lab.run(fn, ranks, partial(inputs.normal, shape=shape, more=(root,)), key=key, **options)


def _arrives(outcome: Outcome, root: int) -> None:
    for rank, (got, right) in enumerate(zip(outcome.given, _expected(outcome, root), strict=True)):
        same(
            got[0],
            right,
            f"{outcome.at}, root {root}: rank {rank}'s tensor",
            "Fill `tensor` in place, as dist.broadcast does.",
        )


def numbers(fn: Callable, lab: Lab) -> None:
    """Every rank holds the root's tensor, at 1 to 4 ranks."""
    for ranks in WORLDS:
        _arrives(_run(fn, lab, ranks), 0)


def other_roots(fn: Callable, lab: Lab) -> None:
    """Any rank can be the root, and any shape is carried."""
    for ranks, root, shape in ((2, 1, (5,)), (3, 2, (3, 5)), (4, 1, (7,))):
        _arrives(_run(fn, lab, ranks, shape, root), root)


def messages_only(fn: Callable, lab: Lab) -> None:
    """It is built from messages, and they carry the data."""
    outcome = _run(fn, lab, 3)
    forbid(outcome)
    size_bytes = 24 * ITEM_BYTES
    expect_travel(outcome, lambda rank: size_bytes if rank == 0 else 0, "the root of any broadcast")
    garbled = _run(fn, lab, 3, garble=True)
    expect_heard(garbled._replace(results=[given[0] for given in garbled.given]), _expected(garbled, 0))


def steps(ranks: int) -> int:
    """ceil(log2 ranks), in integers."""
    return (ranks - 1).bit_length()


def few_messages(fn: Callable, lab: Lab) -> None:
    """No rank sends more than ceil(log2 n) messages: a tree, not a star."""
    for ranks in STEEP:
        outcome = _run(fn, lab, ranks)
        forbid(outcome)
        _arrives(outcome, 0)
        advice = "Whoever has the data already could help the root."
        expect_messages(outcome, lambda rank, ranks=ranks: steps(ranks), "a tree sends at most", advice)


def few_rounds(fn: Callable, lab: Lab) -> None:
    """All are served after ceil(log2 n) rounds: a tree, not a chain."""
    for ranks in STEEP:
        outcome = _run(fn, lab, ranks)
        forbid(outcome)
        _arrives(outcome, 0)
        advice = "In each round, how many of the ranks that have the data send? Serve first whoever serves most others."
        expect_rounds(outcome, steps(ranks), "a binomial tree takes", advice)


EXERCISE = Exercise(
    name="tree_broadcast",
    title="Broadcast along a binomial tree",
    level="easy",
    minutes=20,
    tests=(numbers, other_roots, messages_only, few_messages, few_rounds),
    notebook="02_collectives",
)
