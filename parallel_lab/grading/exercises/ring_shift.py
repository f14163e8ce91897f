"""Chapter 02: a ring shift to mend: a send may block until its receive is posted (MPI standard 4.0, section 3.4)."""

from parallel_lab.grading import drivers, expect
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

LENGTH = 50_000
SMALL = cases("ranks shape", (2, (1,)), (3, (2, 5)), (5, (3,)))
ORDER = "Mend the order of send and receive; there is no need for a collective."

EXERCISE = Exercise(
    name="ring_shift",
    given=drivers.normal,
    expected=lambda outcome: [outcome.inputs[rank - 1][0] for rank in range(outcome.ranks)],
    settings={"shape": (LENGTH,)},
    always=(expect.equals("Rank r returns what its left neighbor, rank r - 1, had."), expect.keeps_input()),
    tests={
        "It ends, and every rank has its left neighbor's tensor, at 2, 3, 4 and 1 ranks": on((2, 3, 4, 1)),
        "It ends for small tensors of any shape too": on(SMALL),
        "Every rank still sends its tensor, once": on(
            (2, 3, 4),
            expect.forbids(advice=ORDER),
            expect.sends("a shift sends", lambda n: LENGTH * 8, advice="Each rank has one neighbor to serve."),
            expect.messages("a shift sends", lambda n: 1, "One message per rank is enough."),
        )
        + changed_on(3),
    },
)
