"""Chapter 00, the warm-up: every rank gives a number, every rank gets the sum, in one collective."""

from parallel_lab.grading import drivers, oracles
from parallel_lab.grading import expectations as expect
from parallel_lab.grading.case import WORLDS
from parallel_lab.grading.exercise import Exercise, changed_on, on, test

EVERYWHERE = "Each rank must get the sum of the numbers of all ranks. Which ranks does your operation leave it on?"
ONE = "Every message costs a latency. Is there one operation that sums and leaves the sum everywhere?"

EXERCISE = Exercise(
    name="sum_of_ranks",
    given=drivers.normal,
    expected=oracles.total,
    settings={"shape": ()},
    tests=(
        test(
            "Every rank returns the sum of all ranks' numbers, and keeps its own, at 1 to 4 ranks",
            on(WORLDS, expect.equals(EVERYWHERE), expect.keeps_input()),
        ),
        test(
            "Each rank calls one collective that leaves the sum on every rank, and nothing else",
            on(WORLDS[1:], expect.calls("all_reduce", advice=ONE)),
        ),
        test("The sum is what that collective brought", on(3, expect.equals(EVERYWHERE)), changed_on(3)),
    ),
)
