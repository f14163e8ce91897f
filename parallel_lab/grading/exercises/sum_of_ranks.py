"""Chapter 00, the warm-up: every rank gives a number, every rank gets the sum, in one collective.

A reduce leaves the sum on one rank; an all-reduce leaves it on all. Data-parallel training needs the second, because
every rank then takes the optimizer's step for itself.
"""

from parallel_lab.grading.case import WORLDS
from parallel_lab.grading.drivers import normal
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import calls, equals, heard, keeps_input
from parallel_lab.grading.oracles import total

EVERYWHERE = "Each rank must get the sum of the numbers of all ranks. Which ranks does your operation leave it on?"
ONE = "Every message costs a latency. Is there one operation that sums and leaves the sum everywhere?"
right = equals(EVERYWHERE)

EXERCISE = Exercise(
    name="sum_of_ranks",
    title="Warm-up: the sum of all ranks' numbers, on every rank",
    level="easy",
    minutes=5,
    notebook="00_start_here",
    given=normal,
    expected=total,
    settings={"shape": ()},
    tests=(
        test(
            "Every rank returns the sum of all ranks' numbers, and keeps its own, at 1 to 4 ranks",
            on(WORLDS, right, keeps_input()),
        ),
        test(
            "Each rank calls one collective that leaves the sum on every rank, and nothing else",
            on(WORLDS[1:], calls("all_reduce", advice=ONE)),
        ),
        test("The sum is what that collective brought", on(3, right), on(3, heard(), changed=True)),
    ),
)
