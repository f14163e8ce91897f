"""Chapter 13: global and structured pruning with fine-tuning (Han et al. 2015; Li et al. 2017)."""

from parallel_lab.grading import expect, pruned
from parallel_lab.grading.exercise import Exercise, cases, on

POOL = "The weight matrices of all linears are one pool with one threshold; biases are not in it."
AGAIN = "A step moves every weight that it is given, zeros too: what does a mask have to do after each step?"
MODULE = "Return the model: the one you were given, or a new one."
ROWS = (
    "A neuron is a row of one weight with its bias, and a column of the next. Both are gone, and the matrix is smaller."
)
MEAN = "Gradients of the batch of all ranks: the mean over the ranks, whose shares are equal."
STAYS = "The masks are the same on every rank. Which gradients does a rank have to tell the others?"
OWN = "An optimizer steps the parameters that it was made with: are these the ones of the model that you return?"
WHEN = "From the first step on the rest learns to do without what is gone."

WIDTHS = (16, 24, 20, 8)
WEIGHTS, BIASES = 16 * 24 + 24 * 20 + 20 * 8, 24 + 20 + 8
KEPT = WEIGHTS // 4 + BIASES
CUT = 16 * 6 + 6 + 6 * 5 + 5 + 5 * 8 + 8
STEPS = 3
WIDE = {"widths": WIDTHS, "batches": STEPS}

advice = {pruned.RETURNED: MODULE, "": POOL}
global_ = expect.unlike(pruned.WEIGHT, {"each layer was pruned by a threshold of its own": {"scope": "layer"}}, POOL)
no_biases = expect.unlike(pruned.BIAS, {"biases were pruned and counted with the weights": {"biases": True}}, POOL)
trained = expect.unlike(pruned.WEIGHT, {"the returned model is as it was before training": {"untrained": True}}, OWN)
late = expect.unlike(
    pruned.WEIGHT, {"masks held before and after training, and not within it": {"zeros": "ends"}}, WHEN
)
smaller = {pruned.RETURNED: MODULE, "": ROWS}


def travels(what: str, numbers: int, advice: str):
    """What a ring sends in all steps for so many numbers."""
    return expect.sends(what, lambda n: STEPS * 2 * (n - 1) / n * numbers * pruned.E, advice=advice, slack=200)


EXERCISE = Exercise(
    name="prune_and_tune",
    given=pruned.given,
    drive=pruned.prune,
    expected=pruned.whole,
    settings={"widths": (7, 12, 9, 5), "rows": (6,), "batches": 0, "sparsity": 0.75, "structured": False},
    tests={
        # Step 1
        "Without batches the smallest weights of the whole model are zero, and no biases": on(
            1, global_, no_biases, expect.equals(advice), sparsity=0.6
        ),
        # Step 2
        "Training goes on after pruning, and what is zero stays zero": on(
            1, pruned.zeros_stay(AGAIN), trained, late, expect.equals(advice), batches=STEPS
        ),
        # Step 3
        "Structured, the hidden neurons are gone and the matrices are smaller": on(
            1, expect.equals(smaller), structured=True
        ),
        "The smaller model is trained": on(
            1, trained, expect.equals(smaller), batches=STEPS, structured=True, widths=(5, 16, 3)
        ),
        # Step 4
        "Ranks that share each batch end where one process ends": on(3, expect.equals(MEAN), batches=STEPS),
        "What is gone is not sent": [
            *on(2, expect.equals(MEAN), travels("gradients of what stays are", KEPT, STAYS), **WIDE),
            *on(
                cases("ranks structured", (2, True)),
                expect.equals(MEAN),
                travels("gradients of the smaller model are", CUT, ROWS),
                **WIDE,
            ),
        ],
    },
)
