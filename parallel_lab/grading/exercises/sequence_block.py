"""Chapter 08: a block whose norms and sums work on a part of the sequence (Korthikanti et al. 2022, section 4.2.2)."""

from parallel_lab.grading import cutting, expect, whole
from parallel_lab.grading.exercise import Exercise, changed_on, on

BATCH, SHARE, WIDTH, HEADS, HIDDEN, STEPS = 2, 3, 24, 12, 48, 2
WHERE = "Attention reads the whole sequence, the norms and the sums only this rank's part: what stands between them?"
BIAS = "The bias stands behind the sum over ranks: add it to this rank's part, once."
BELOW = (
    "Forward gave these tokens to n ranks: their gradient is the sum of what n ranks made of them, in this rank's part."
)
WHOLE = (
    "Norms, out.bias and down.bias are whole on each rank, and saw its tokens alone: their gradients are summed over "
    "the ranks, not averaged, once per step."
)
PART = "Of query, key, value and up a rank has rows, head by head, and of out and down columns."
SCATTER = (
    "Each rank needs the sum for its own tokens alone: that is a reduce-scatter. An all-reduce sends twice as much."
)
GATHERS = "Backward is forward reversed: a gather becomes a reduce-scatter, and a reduce-scatter a gather."
GONE = "What is cut must be copied: a slice keeps the whole tensor alive. Who else refers to the block's own weights?"
SMALL = 6 * WIDTH * 8  # bytes of the parameters that every rank has
CUT_BYTES = ((4 * WIDTH + 2 * HIDDEN) * WIDTH + 3 * WIDTH + HIDDEN) * 8  # matrices, and the biases of their rows
PARTS_BYTES = CUT_BYTES // 4 + SMALL + 6000  # at 4 ranks, and what a step leaves
WIDE = {"limits": (("step", PARTS_BYTES, "between two steps", "its parts are", GONE),)}


def whole_bytes(n: int) -> float:
    """(n-1)/n of the bytes of one tensor of the whole sequence's size."""
    return (n - 1) / n * BATCH * SHARE * n * WIDTH * 8


forward = expect.sends(
    "two gathers and two reduce-scatters send",
    lambda n: 4 * whole_bytes(n),
    advice=SCATTER,
    slack=100,
    between=cutting.FORWARD,
)
backward = expect.sends(
    "as many, a second gather for the weights' gradients, and the sum of what all have send",
    lambda n: 6 * whole_bytes(n) + 2 * (n - 1) / n * SMALL,
    lambda n: 4 * whole_bytes(n) + 2 * (n - 1) / n * SMALL,
    advice=GATHERS,
    slack=100,
    between=cutting.BACKWARD,
)
twice = expect.unlike("step 0: the output", {"biases came in once per rank": {"bias_each": True}}, BIAS)
of_whole = dict.fromkeys(cutting.REPLICATED, WHOLE)
right = expect.equals({"the output": WHERE, "of the input": BELOW} | of_whole | {"": PART})

EXERCISE = Exercise(
    name="sequence_block",
    given=cutting.batches,
    drive=cutting.cut_block,
    expected=whole.whole_block,
    settings={
        "shape": (BATCH, SHARE, WIDTH),
        "width": WIDTH,
        "heads": HEADS,
        "hidden": HIDDEN,
        "steps": STEPS,
        "limits": (),
    },
    tests={
        # Step 1
        "Each rank's part of the output is that of one process, at 1 to 3 ranks": on(
            (2, 1, 3), twice, right, forward=True
        ),
        # Step 2
        "Each rank's part of the input's gradient is that of one process": on(3, right, cut_only=True),
        # Step 3
        "Two steps are those of one process: what all ranks have stays equal": (on(4, right, **WIDE) + changed_on(2)),
        # Step 4
        "Forward sends two gathers and two reduce-scatters, and backward as many": on(4, forward, backward, **WIDE),
        "A rank holds 1/n of the matrices": on(4, expect.holds(), **WIDE),
    },
)
