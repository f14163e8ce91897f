"""Chapter 06: gathers that run beside computing (Zhao et al. 2023, "PyTorch FSDP", section 3.3)."""

from itertools import pairwise

from parallel_lab.grading import drivers, expect, oracles, schedule, sharding
from parallel_lab.grading.exercise import Exercise, changed_on, on
from parallel_lab.network import Link

WIDTHS = (24, 25, 26, 27, 28, 29, 30)  # six layers, no two of one size
SIZES = [out * (width + 1) for width, out in pairwise(WIDTHS)]
SHARDS_BYTES, KEPT_BYTES = 8 * sum(SIZES) // 2, 8 * 4 * sum(WIDTHS) + 2000  # at 2 ranks; 4 rows
TWO_BYTES, LARGEST_BYTES = 8 * sum(SIZES[-2:]), 8 * SIZES[-1]
OUTPUT = "Layer by layer: gather, compute with what came, and keep the layer's input for backward."
PART = "The mean over ranks of the layer's gradient, and of it this rank's part; padding stays zero."
AHEAD = "Just before a layer computes, the gather of the next one is issued: then it travels meanwhile."
BACK = "Backward needs layers last first. The last one is still there: its gather would bring nothing new."
BEHIND = "A layer's gradient can travel while the layer before it computes."
FREED = "Layer i is done with: who still refers to what was gathered, or to its whole gradient?"
LIMITS = (
    (
        "layer_forward",
        TWO_BYTES + KEPT_BYTES,
        "in the forward of layer {}",
        "two gathered layers and inputs are",
        FREED,
    ),
    (
        "layer_backward",
        TWO_BYTES + LARGEST_BYTES + SHARDS_BYTES + KEPT_BYTES,
        "in the backward of layer {}",
        "two gathered layers, one gradient, parts and inputs are",
        FREED,
    ),
)
# At 2 ranks a gather takes 30 to 45 ms, and a layer computes for some 0.1 ms.
SLOW = {"widths": WIDTHS, "limits": LIMITS, "rows": (4,), "batches": 1, "link": Link(bytes_per_s=80_000)}
MOST_BYTES = 8 * (3 * sum(SIZES) - SIZES[-1]) / 2
travels = expect.sends(
    "2 L - 1 gathers and L reduce-scatters send", lambda n: MOST_BYTES, advice=BACK, slack=64, between=expect.STEP
)

EXERCISE = Exercise(
    name="prefetched_step",
    given=drivers.batches,
    drive=sharding.prefetch,
    expected=oracles.chained,
    settings={"widths": (5, 7, 6, 3), "rows": (3, 2, 4), "batches": 2, "limits": ()},
    always=(expect.equals({"output": OUTPUT, "gradient of layer": PART}),),
    tests={
        # Step 1
        "Outputs and parts of the mean gradient are those of one process, at 1 to 4 ranks": (
            on((1, 2, 3, 4)) + changed_on(2)
        ),
        # Step 2
        "In forward each gather is issued one layer ahead, and two layers are held at the most": on(
            2, schedule.gathers_ahead("forward", AHEAD), expect.holds("layer_forward"), **SLOW
        ),
        # Step 3
        "In backward too, last layer first, and the last layer is not gathered again": on(
            2, schedule.gathers_ahead("backward", BACK), travels, **SLOW
        ),
        "Each reduce-scatter runs beside the backward after it, and all are over at the end": on(
            2, schedule.scatters_behind(BEHIND), expect.holds(), **SLOW
        ),
    },
)
