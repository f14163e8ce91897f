"""Chapter 08: a linear cut by columns and one by rows, and what stands before and behind them (Shoeybi et al. 2019)."""

from parallel_lab.grading import cutting, expect, whole
from parallel_lab.grading.exercise import Exercise, changed_on, on

ROWS, WIDTH, HIDDEN, STEPS = 8, 32, 96, 2
SUMMED = (
    "Each rank has a part of the hidden layer, and so a part of every sum: who adds them, and when does the bias come?"
)
BIAS = "The bias stands behind the sum: add it once, when the sum is there."
BELOW = "Each rank's rows of up make a part of the input's gradient: the layer below needs the sum of them."
PART = "A rank's gradient is that of its own rows of up and columns of down; the bias of down is whole on each rank."
ONCE = "One all-reduce of the output, and one of the input's gradient; the hidden layer stays where it is."
PARTS_BYTES = (HIDDEN // 4 * (2 * WIDTH + 1) + WIDTH) * 8 + 6000  # at 4 ranks, and what a step leaves
GONE = "What is cut must be copied: a slice keeps the whole tensor alive. Who else refers to up and down?"
WIDE = {"limits": (("step", PARTS_BYTES, "between two steps", "its parts are", GONE),)}
S = ROWS * WIDTH * 8  # bytes of the output
travels = expect.sends(
    "two all-reduces send", lambda n: 4 * (n - 1) / n * S, advice=ONCE, slack=100, between=expect.STEP
)
twice = expect.unlike("step 0: the output", {"the bias of down came in once per rank": {"bias_each": True}}, BIAS)
right = expect.equals({"the output": SUMMED, "of the input": BELOW, "": PART})

EXERCISE = Exercise(
    name="column_row_pair",
    given=cutting.batches,
    drive=cutting.cut_pair,
    expected=whole.whole_pair,
    settings={"shape": (ROWS, WIDTH), "width": WIDTH, "hidden": HIDDEN, "steps": STEPS, "limits": ()},
    tests={
        # Step 1
        "The output is that of one process, at 2 and 3 ranks": on((2, 3), twice, right, forward=True),
        # Step 2
        "The layer below gets its whole gradient, and two steps are those of one process, at 1, 2 and 4 ranks": (
            on((2, 1), right) + on(4, right, **WIDE)
        ),
        # Step 3
        "A step sends two all-reduces, and they carry the data": on(4, travels, **WIDE) + changed_on(2),
        "A rank holds 1/n of the weights": on(4, expect.holds(), **WIDE),
    },
)
