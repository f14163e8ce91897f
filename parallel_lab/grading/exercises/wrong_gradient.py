"""Chapter 11: which gradient of a 2 x 2 x 2 run is wrong, by which factor, or over which axis (questions C12, F19)."""

from parallel_lab.grading import runs, small_gpt
from parallel_lab.grading.exercise import Exercise, on

NOISE = (
    "Sums in another order differ in their last digits, and the gradient of key.bias is zero but for them: compare "
    "with the largest gradient of the model."
)
ALL = "A rank sees its own stage: what is wrong on others must be known to all. Every rank joins in, wrong or not."
PARTS = "Put the gradients of the ranks that differ along one axis together: along which are they right then?"
FIRST = "Half of it on both ranks of tp also adds up to the right one: ask for a constant factor first."
RATIO = "What was divided too often or not at all? Every element of the gradient then is the same multiple."
MEAN = "Over tp and pp gradients are summed; over dp they are averaged."
COPIES = "Both stages have a copy of the embedding's weight, under one name: its gradient is the sum over pp."
WHERE = "Of the ranks where it is wrong: the factor is that of those, and the stage that is right does not count."
NAMES = dict.fromkeys(("partial", "averaged", "alone", "untied", "undivided", "twice"), ALL) | {"none": NOISE}
FACTOR = {"none": NOISE, "averaged": RATIO, "twice": RATIO, "undivided": WHERE}
AXIS = {"averaged": FIRST, "twice": FIRST, "undivided": FIRST, "partial": PARTS, "alone": MEAN, "untied": COPIES}

EXERCISE = Exercise(
    name="wrong_gradient",
    given=small_gpt.batches,
    drive=runs.show_steps,
    expected=runs.to_be_found,
    device="cpu",
    tests={
        # Step 1
        "Every rank names the parameters that are wrong, in seven steps": on(8, runs.finds("parameters", NAMES)),
        # Step 2
        "Where a gradient is a multiple of the right one, by how much": on(8, runs.finds("factor", FACTOR)),
        # Step 3
        "Where ranks were not put together, over which axis": on(8, runs.finds("axis", AXIS)),
    },
)
