"""Chapter 00, the warm-up: every rank gives a number, every rank gets the sum, in one collective."""

from parallel_lab.grading import drivers, expect
from parallel_lab.grading.exercise import Exercise, changed_on, on

EVERYWHERE = "Each rank must get the sum of the numbers of all ranks."
ANY = "one collective that leaves the sum on every rank"  # its name is what is asked
ONE = "Every message costs a latency. Is there one operation that sums and leaves the sum everywhere?"
right, keeps = expect.equals(EVERYWHERE), expect.keeps_input()

EXERCISE = Exercise(
    name="sum_of_ranks",
    given=drivers.normal,
    expected=lambda outcome: [sum(given[0] for given in outcome.inputs)] * outcome.ranks,
    settings={"shape": ()},
    tests={
        "Every rank returns the sum of all ranks' numbers, and keeps its own, at 1 to 4 ranks": on(
            (1, 2, 3, 4), right, keeps
        ),
        "Each rank calls one collective that leaves the sum on every rank, and nothing else": on(
            (2, 3, 4), expect.calls("all_reduce", advice=ONE, words=ANY)
        ),
        "The sum is what that collective brought": on(3, right) + changed_on(3),
    },
)
