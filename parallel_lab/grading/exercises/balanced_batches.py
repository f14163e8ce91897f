"""Chapter 15: a batch of unequal sequences dealt to ranks (Graham 1969 for the rule; the best cut is NP-hard)."""

from functools import partial

from parallel_lab.grading import batched, drivers, uneven
from parallel_lab.grading.exercise import Exercise, on

COUNTS = "Equal numbers of sequences are no equal loads: the longest have as much to do as ten others."
DEALT = (
    "So one rank has the longest of each turn. Does the longest come first, and does whoever has least get the next?"
)
LATE = "A long sequence that comes late finds all ranks even, and makes one of them late. Which should come first?"
TOKENS = "The tokens are even and the work is not: attention of a long sequence costs more for each token."
WORK = "What does one sequence cost in tokens, its attention included? Even that out instead of the tokens."
SPEEDS = "Loads are even, but a rank of half the speed takes twice as long for the same. What should be even?"
DONE = "Who would be done first with the next sequence, if it got it? Not who has least now."
MOST = 0.03

usual = {DEALT: batched.dealt, COUNTS: batched.equal_numbers}
of_work = {TOKENS: batched.of_tokens, **usual}
of_speeds = {SPEEDS: batched.of_equal_ranks, TOKENS: batched.of_tokens, **usual}
once = batched.on_one_rank()


def calls(*ranks: int, wide: bool = False, slow: bool = False) -> tuple:
    """The calls of one test."""
    return (partial(uneven.batches, ranks=ranks, wide=wide, slow=slow),)


EXERCISE = Exercise(
    name="balanced_batches",
    given=drivers.calls,
    drive=drivers.call_each,
    device="cpu",
    tests={
        # Step 1
        "Each sequence is on one rank, at 1 to 8 ranks": on(1, once, calls=calls(1, 2, 3, 4, 8)),
        "The most tokens of a rank are within 3 % of the lower bound": on(
            1, once, batched.is_even(MOST, usual, LATE), calls=calls(2, 3, 4, 8, 8)
        ),
        # Step 2
        "The most work of a rank is within 3 % of the lower bound, attention included": on(
            1, once, batched.is_even(MOST, of_work, WORK), calls=calls(2, 4, 8, 8, wide=True)
        ),
        # Step 3
        "With a slow rank, the slowest is within 3 % of the lower bound": on(
            1, once, batched.is_even(MOST, of_speeds, DONE), calls=calls(2, 4, 8, 8, wide=True, slow=True)
        ),
    },
)
