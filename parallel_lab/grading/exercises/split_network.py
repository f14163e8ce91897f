"""Chapter 07: a network cut over two ranks, forward and backward (Narayanan et al. 2021, "PTD-P", section 2.2)."""

from parallel_lab.grading import expect, halves, oracles
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

LAYERS, WIDTH = 6, 64
HALF_BYTES = LAYERS // 2 * (WIDTH + 1) * WIDTH * 8
OWN = "Make the layers of this rank alone; a list of all of them stays alive while `step` can reach it."
LIMITS = (("step", HALF_BYTES + 4000, "before a step", "its own layers are", OWN),)
WIDE = {"widths": (WIDTH,) * (LAYERS + 1), "cut": LAYERS // 2, "rows": (2, 2), "limits": LIMITS}
LAST = "The loss is computed where the last layer is: rank 1 has the targets too, and returns it."
ENDS = "Autograd ends at what was sent and begins at what was received: who hands over the gradient in between?"
ADVICE = {"loss": LAST, "weight": ENDS, "bias": ENDS}
CUTS = cases("ranks cut rows", (2, 1, (3, 1, 4)), (2, 2, (2, 5)), (2, 3, (4, 4)))
SENT = 6 * 2 * 8  # six rows of two features
ONCE = "The gradient has the shape of what was sent. What else travels is not needed, or is known on both sides."

EXERCISE = Exercise(
    name="split_network",
    given=halves.uneven_batches,
    drive=halves.split_steps,
    expected=oracles.split_over_two,
    settings={"widths": (5, 7, 2, 3, 4), "rows": (3, 2), "cut": 2, "limits": ()},
    tests={
        # Step 1
        "Rank 1 has the loss of one process, wherever the cut is": on(CUTS, expect.equals(ADVICE), graded="loss"),
        "Each rank holds the parameters of its own layers alone": on(2, expect.holds(), graded="loss", **WIDE),
        # Step 2
        "Every layer has the gradient of one process, batch after batch": on(CUTS, expect.equals(ADVICE)),
        # Step 3
        "One activation goes forward and one gradient back, and they carry the data": (
            on(
                2,
                expect.forbids(),
                expect.sends("one activation or its gradient is", lambda n: SENT, advice=ONCE, between=expect.STEP),
                expect.messages("one of each batch is", lambda n: 3, ONCE),
                rows=(6, 6, 6),
            )
            + changed_on(2)
        ),
    },
)
