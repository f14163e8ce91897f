"""Chapter 02: a shift round the ring in which every rank sends before it receives, to be mended.

A send may block until its receive is posted (MPI standard 4.0, section 3.4; gloo and NCCL do so).
"""

from parallel_lab.grading import drivers, oracles
from parallel_lab.grading import expectations as expect
from parallel_lab.grading.exercise import Exercise, changed_on, on, test

LENGTH = 50_000

EXERCISE = Exercise(
    name="ring_shift",
    given=drivers.normal,
    expected=oracles.of_left_neighbor,
    settings={"shape": (LENGTH,)},
    always=(expect.equals("Rank r returns what its left neighbor, rank r - 1, had."),),
    tests=(
        test(
            "It ends, and every rank has its left neighbor's tensor, at 2, 3, 4 and 1 ranks",
            on((2, 3, 4, 1), expect.keeps_input()),
        ),
        test(
            "It ends for small tensors of any shape too",
            *(on(ranks, shape=shape) for ranks, shape in ((2, (1,)), (3, (2, 5)), (5, (3,)))),
        ),
        test(
            "Every rank still sends its tensor, once",
            on(
                (2, 3, 4),
                expect.forbids(advice="Mend the order of send and receive; there is no need for a collective."),
                expect.sends("a shift sends", lambda n: LENGTH * 8, advice="Each rank has one neighbor to serve."),
                expect.messages("a shift sends", lambda n: 1, "One message a rank is enough."),
            ),
            changed_on(3),
        ),
    ),
)
