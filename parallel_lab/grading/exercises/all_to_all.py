"""Chapter 02: all-to-all from sends and receives: the exchange behind expert parallelism and Ulysses attention.

Each rank keeps one block and sends n - 1, one to each other rank: (n-1)/n of what it holds.
"""

from parallel_lab.grading.case import WORLDS
from parallel_lab.grading.drivers import blocks
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import (
    ITEM_BYTES,
    equals,
    forbids,
    heard,
    keeps_input,
    messages,
    peers,
    sends,
)
from parallel_lab.grading.oracles import blocks_for_me

BLOCK_BYTES = 40 * 3 * ITEM_BYTES
WANTED = "Of all the blocks that you hold, which does rank i want?"
right = equals("Item i of the result is the block that rank i had for you.")

EXERCISE = Exercise(
    name="all_to_all",
    title="All-to-all from sends and receives",
    level="medium",
    minutes=25,
    notebook="02_collectives",
    given=blocks,
    expected=blocks_for_me,
    settings={"shape": (40, 3)},
    tests=(
        test(
            "Item i of each rank's result is the block that rank i had for it, at 1 to 4 ranks",
            on(WORLDS, right, keeps_input()),
        ),
        test(
            "Blocks of any shape are carried, and more ranks too",
            *(on(ranks, right, shape=shape) for ranks, shape in ((3, (1,)), (4, (2, 1, 5)), (5, (7,)))),
        ),
        test("It is built from messages, and they carry the data", on(3, forbids()), on(3, heard(), changed=True)),
        test(
            "Each rank sends n - 1 blocks, one to each other rank, and nothing that its receiver throws away",
            on(
                WORLDS[1:],
                *(right, forbids()),
                sends("an all-to-all sends", lambda case: (case.ranks - 1) * BLOCK_BYTES, advice=WANTED),
                messages("an all-to-all sends", lambda case: case.ranks - 1, "One message a peer will do."),
                peers(lambda case: case.ranks - 1, "Send each block straight to its owner."),
            ),
        ),
    ),
)
