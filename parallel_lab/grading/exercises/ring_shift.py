"""Chapter 02: a shift round the ring in which every rank sends before it receives, to be mended.

A send may block until its receive is posted (MPI standard 4.0, section 3.4; gloo and NCCL do so): a program that is
right only if messages are buffered is wrong.
"""

from parallel_lab.grading.drivers import normal
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import ITEM_BYTES, equals, forbids, heard, keeps_input, messages, sends
from parallel_lab.grading.oracles import of_left_neighbor

LENGTH = 50_000
right = equals("Rank r returns what its left neighbor, rank r - 1, had.")

EXERCISE = Exercise(
    name="ring_shift",
    title="Mend a deadlock: a shift round the ring",
    level="easy",
    minutes=10,
    notebook="02_collectives",
    given=normal,
    expected=of_left_neighbor,
    settings={"shape": (LENGTH,)},
    tests=(
        test(
            "It ends, and every rank has its left neighbor's tensor, at 2, 3, 4 and 1 ranks",
            on((2, 3, 4, 1), right, keeps_input()),
        ),
        test(
            "It ends for small tensors of any shape too",
            *(on(ranks, right, shape=shape) for ranks, shape in ((2, (1,)), (3, (2, 5)), (5, (3,)))),
        ),
        test(
            "Every rank still sends its tensor, once",
            on(
                (2, 3, 4),
                *(right, forbids(advice="Mend the order of send and receive; there is no need for a collective.")),
                sends("a shift sends", lambda case: LENGTH * ITEM_BYTES, advice="Each rank has one neighbor to serve."),
                messages("a shift sends", lambda case: 1, "One message a rank is enough."),
            ),
            on(3, heard(), changed=True),
        ),
    ),
)
