"""Chapter 11: the norm of all gradients, of which each rank has a part, and some several ranks (question F19)."""

from parallel_lab.grading import expect, layouts
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

TP = "A norm's weight is whole on each rank of tp: which one of them counts it?"
DP = "Gradients were averaged: all data ranks have the same. Which one of them counts?"
STAGE = "The norm is over the whole model, the same on all ranks: else clipping scales each stage by its own number."
TIED = "The first and the last stage have a copy of the tied weight, with equal gradients: it is one parameter."
EXPERTS = "Ranks of ep have different experts, ranks of edp the same: an expert is no copy because dp_cp is not 0."
ONCE = "Count each number of the model on one rank alone; then one sum over all ranks is all."
ONE = "Squares can be added: what does each rank have to send of all that it holds?"
MISTAKES = {
    "tp": ("what is whole on each rank of tp counted there each time", TP),
    "dp": ("what all data ranks have counted on each of them", DP),
    "stage": ("each stage has a norm of its own", STAGE),
    "tied": ("the tied weight counted twice", TIED),
    "experts": ("only the experts of the first rank of ep counted", EXPERTS),
}
INSIDE = cases("ranks layout", (2, (1, 1, 1, 2, 1)), (4, (1, 1, 2, 2, 1)))
STAGES = cases("ranks layout", (2, (2, 1, 1, 1, 1)), (3, (3, 1, 1, 1, 1)))
SPREAD = cases("ranks layout", (4, (1, 4, 1, 1, 2)), (8, (2, 2, 1, 2, 2)))


def not_a(*mistakes: str) -> tuple:
    """The norm is not that of a usual mistake, and it is right."""
    named = [expect.unlike("the norm", {MISTAKES[each][0]: {"mistake": each}}, MISTAKES[each][1]) for each in mistakes]
    return (*named, expect.equals({"the norm": ONCE}))


one_number = expect.sends("one number of 8 bytes goes round:", lambda n: 2 * (n - 1) / n * 8, advice=ONE)

EXERCISE = Exercise(
    name="norm_over_axes",
    given=layouts.whole_gradients,
    drive=layouts.norm_of_all,
    expected=layouts.whole_norm,
    device="cpu",
    tests={
        # Step 1
        "Cut and copied parameters of one stage, over tp and data ranks": on(INSIDE, *not_a("tp", "dp"))
        + changed_on(2, layout=(1, 1, 1, 2, 1)),
        # Step 2
        "One norm for all stages, where a tied weight stands in two": on(STAGES, *not_a("stage", "tied")),
        # Step 3
        "Experts count once each, however many ranks have them": on(SPREAD, *not_a("experts", "tp", "dp")),
        "All gradients one: the root of the number of parameters": on(SPREAD[1:], expect.equals(ONCE), ones=True),
        "One number travels": on(SPREAD, one_number),
    },
)
