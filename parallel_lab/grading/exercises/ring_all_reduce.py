"""Chapter 02: all-reduce by a ring, reduce-scatter followed by all-gather (Patarasuk and Yuan 2009).

Each rank sends 2 (n-1)/n S bytes in 2 (n-1) messages, all to one neighbor: no all-reduce sends fewer bytes.
"""

from parallel_lab.grading import drivers, oracles
from parallel_lab.grading import expectations as expect
from parallel_lab.grading.case import WORLDS
from parallel_lab.grading.exercise import Exercise, changed_on, on, test

LENGTH = 12_000  # divides by 2, 3 and 4
UNEVEN = ((3, (7,)), (4, (5, 3)), (2, (1,)), (3, (2,)), (4, (3, 1, 7)))  # also fewer elements than ranks
PART = "Which part of the tensor does the neighbor really need in this round?"
SIGNAL = "A ring needs nothing between its rounds: a message received is itself the signal to go on."
ONE_HOP = "On a real ring of cables only the neighbor is one hop away."
right = expect.equals("Return the sum over all ranks.")

EXERCISE = Exercise(
    name="ring_all_reduce",
    given=drivers.normal,
    expected=oracles.total,
    settings={"shape": (LENGTH,)},
    tests=(
        test(
            "Every rank returns the sum, at 1 to 4 ranks, and leaves its input alone",
            on(WORLDS, right, expect.keeps_input()),
        ),
        test(
            "Sizes that do not divide by the number of ranks work, and keep their shape",
            *(on(ranks, right, shape=shape) for ranks, shape in UNEVEN),
        ),
        test("It is built from messages, and they carry the data", on(3, expect.forbids()), changed_on(3)),
        test(
            "Each rank sends 2 (n-1)/n of the tensor, and no more",
            on(WORLDS[1:], expect.sends("a ring sends", lambda n: 2 * (n - 1) * LENGTH // n * 8, advice=PART)),
        ),
        test(
            "Each rank sends 2 (n-1) messages, all to one neighbor",
            on(
                WORLDS[1:],
                expect.messages("a ring sends", lambda n: 2 * (n - 1), SIGNAL),
                expect.peers(lambda n: 1, ONE_HOP),
            ),
        ),
    ),
)
