"""Chapter 02: all-to-all from sends and receives: the exchange behind expert parallelism and Ulysses attention.

Each rank keeps one block and sends n - 1, one to each other rank: (n-1)/n of what it holds.
"""

from parallel_lab.grading import drivers, oracles
from parallel_lab.grading import expectations as expect
from parallel_lab.grading.case import WORLDS
from parallel_lab.grading.exercise import Exercise, changed_on, on, test

BLOCK_BYTES = 40 * 3 * 8
WANTED = "Of all the blocks that you hold, which does rank i want?"

EXERCISE = Exercise(
    name="all_to_all",
    given=drivers.blocks,
    expected=oracles.blocks_for_me,
    settings={"shape": (40, 3)},
    always=(expect.equals("Item i of the result is the block that rank i had for you."), expect.forbids()),
    tests=(
        test(
            "Item i of each rank's result is the block that rank i had for it, at 1 to 4 ranks",
            on(WORLDS, expect.keeps_input()),
        ),
        test(
            "Blocks of any shape are carried, and more ranks too",
            *(on(ranks, shape=shape) for ranks, shape in ((3, (1,)), (4, (2, 1, 5)), (5, (7,)))),
        ),
        test("It is built from messages, and they carry the data", on(3), changed_on(3)),
        test(
            "Each rank sends n - 1 blocks, one to each other rank, and nothing that its receiver throws away",
            on(
                WORLDS[1:],
                expect.sends("an all-to-all sends", lambda n: (n - 1) * BLOCK_BYTES, advice=WANTED),
                expect.messages("an all-to-all sends", lambda n: n - 1, "One message a peer will do."),
                expect.peers(lambda n: n - 1, "Send each block straight to its owner."),
            ),
        ),
    ),
)
