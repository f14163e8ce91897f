"""Chapter 12: a sum over ranks with the same bits whatever the order and the world (Demmel and Nguyen 2013)."""

from parallel_lab.grading import expect, sums
from parallel_lab.grading.exercise import Exercise, cases, on

NEAR = {
    "wrong": "Is each number counted once, and in the unit that all ranks share?",
    "lost": "A unit that is fine for the largest column is too coarse for a small one.",
    "finite": "What is the unit of a column that is zero everywhere?",
}
BITS = (
    "Floating-point addition rounds after each step, in float64 too, only more rarely. What can be added in any order, "
    "or which order is the same whoever has the rows?"
)
ROWS = "The bytes may not grow with the rows. Can each rank add its own rows first, without rounding?"
WOULD = "an all-reduce of float32 and one of int64 send"
WIDTH = 90


def least(n: int) -> float:
    """The bytes of one all-reduce in float32."""
    return 2 * (n - 1) / n * WIDTH * 4


near, bits = sums.near(NEAR), sums.same_bits(BITS)

EXERCISE = Exercise(
    name="reproducible_sum",
    given=sums.rows_to_sum,
    drive=sums.sum_each,
    settings={"shape": (60, WIDTH), "deals": 3, "zeros": ()},
    tests={
        # Step 1
        "Every rank returns the sum, as near as adding in float32 is bound to come": on((1, 3), near),
        "The same rows give the same bits over 1 to 4 ranks, however they are dealt": on(4, bits),
        # Step 2
        "A rank sends two all-reduces of the size of the sum at most": on(
            cases("ranks worlds", (2, (2,)), (4, (4,))),
            expect.sends(WOULD, lambda n: 2 * (n - 1) / n * WIDTH * 12, least, advice=ROWS, slack=64, between=sums.SUM),
            near,
            bits,
        ),
        # Step 3
        "Columns of zeros and ranks without rows take part": on(3, near, bits, zeros=(0, 7, WIDTH - 1), idle=True),
    },
)
