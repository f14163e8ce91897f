"""Chapter 06: a layer whose parameters are cut over the ranks, gathered for use and freed after it.

Rajbhandari et al. 2020, "ZeRO", section 5.3; Zhao et al. 2023, "PyTorch FSDP", section 3.2.
"""

from parallel_lab.grading import drivers, expect, oracles, schedule
from parallel_lab.grading.exercise import Exercise, changed_on, on

LAYERS, LAYER_BYTES = 5, (64 * 64 + 64) * 8
SHARDS_BYTES = LAYERS * LAYER_BYTES // 4 + 2000  # at 4 ranks
# Autograd keeps each layer's input and the output of ReLU, and backward has a gradient or two more.
KEPT_BYTES = SHARDS_BYTES + 3 * LAYERS * 4 * 64 * 8
FORWARD_BYTES, BACKWARD_BYTES = (SHARDS_BYTES + KEPT_BYTES + layers * LAYER_BYTES for layers in (2, 3))
FLAT = "parameters() has one flat tensor: rank r's part of weight and bias, end to end, padded to n equal parts."
MEAN = "The mean over ranks of the layer's gradient, and of it this rank's part."
GONE = "The layer's own parameters, and what was gathered, must be gone: who still refers to them?"
SAVED = "What autograd saves for backward counts too: it keeps the weight of a linear layer unless you prevent it."
GATHER = "Gather a layer just before its forward, and again before its backward; free it before the next one."
AFTER = "After the reduce-scatter nobody needs the whole gradient, nor the gathered layer."
LIMITS = (
    ("step", SHARDS_BYTES, "between two steps", "its shards are", GONE),
    ("between", KEPT_BYTES, "after forward and before backward", "its shards and the activations are", SAVED),
    ("layer_forward", FORWARD_BYTES, "in the forward of layer {}", "shards, activations and it are", GATHER),
    ("layer_backward", BACKWARD_BYTES, "in the backward of layer {}", "as before, and its gradients, are", GATHER),
    ("step_over", SHARDS_BYTES + KEPT_BYTES, "after backward", "its shards and their gradients are", AFTER),
)
WIDE = {"widths": (64,) * (LAYERS + 1), "limits": LIMITS}
TWICE = "Gather once in forward and once in backward; the gradient needs one reduce-scatter."
# An answer that gathers once sends less, and what it holds says why not.
MOVED, AT_MOST = LAYERS * LAYER_BYTES * 3 / 4, "two gathers and a reduce-scatter send"
travels = expect.sends(AT_MOST, lambda n: 3 * MOVED, lambda n: 2 * MOVED, advice=TWICE, slack=100, between=expect.STEP)
scatters = expect.forbids("all_reduce", advice="Each rank needs its own part of the mean gradient alone.")

EXERCISE = Exercise(
    name="gathered_layer",
    given=drivers.batches,
    drive=drivers.train_layers,
    expected=oracles.sharded_layers,
    settings={"widths": (5, 7, 3), "rows": (3, 2, 4), "batches": 2, "limits": ()},
    always=(expect.equals({"(): the shard of layer": FLAT, "gradient of the shard of layer": MEAN}),),
    tests={
        # Step 1
        "Outputs, gradients and two steps are those of one process, at 1 to 4 ranks": on((1, 2, 3)) + on(4, **WIDE),
        "Sizes that do not divide by the number of ranks work": on(4, widths=(4, 5, 1)),
        # Step 2
        "Between two steps a rank holds its shards alone": on(4, expect.holds("step"), **WIDE),
        "A step is two all-gathers and a reduce-scatter: 3 (n-1)/n of the parameters, and they carry the data": (
            on(4, scatters, travels, **WIDE) + changed_on(2)
        ),
        # Step 3
        "Within a step a rank holds a whole layer only while that layer computes": on(4, expect.holds(), **WIDE),
        # Step 4
        "The forward of each layer runs once per step": on(4, schedule.computes_once(), **WIDE),
    },
)
