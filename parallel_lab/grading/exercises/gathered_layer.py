"""Chapter 06: a layer whose parameters are cut over the ranks, gathered for use and freed after it.

Rajbhandari et al. 2020, "ZeRO", section 5.3; Zhao et al. 2023, "PyTorch FSDP", section 3.2.
"""

from parallel_lab.grading import drivers, oracles
from parallel_lab.grading import expectations as expect
from parallel_lab.grading.exercise import Exercise, changed_on, on, test

LAYERS, LAYER_BYTES = 5, (64 * 64 + 64) * 8
SHARDS_BYTES = LAYERS * LAYER_BYTES // 4 + 2000
# Autograd keeps each layer's input and tanh's output, and backward has a gradient or two more.
ACTIVATION_BYTES = 3 * LAYERS * 4 * 64 * 8
LIMITS = (  # where a look is taken, and the most bytes that 4 ranks may hold there
    ("step", SHARDS_BYTES),
    ("between", SHARDS_BYTES + ACTIVATION_BYTES),
    ("layer_forward", 2 * SHARDS_BYTES + 2 * LAYER_BYTES + ACTIVATION_BYTES),
    ("layer_backward", 2 * SHARDS_BYTES + 3 * LAYER_BYTES + ACTIVATION_BYTES),
    ("step_over", 2 * SHARDS_BYTES + ACTIVATION_BYTES),
)
WIDE = {"widths": (64,) * (LAYERS + 1), "limits": LIMITS}
SHARE = 3 * LAYERS * LAYER_BYTES * 3 / 4
FLAT = "parameters() has one flat tensor: rank r's part of weight and bias, end to end, padded to n equal parts."
MEAN = "The mean over ranks of the layer's gradient, and of it this rank's part."
GONE = "The layer's own parameters, and what was gathered, must be gone: who still refers to them?"
SAVED = "What autograd saves for backward counts too: it keeps the weight of a linear layer unless you prevent it."
FORWARD = "Gather a layer just before it computes, and free it before the next one."
BACKWARD = "Gather a layer again just before its backward, and free it before the next one."
AFTER = "After the reduce-scatter nobody needs the whole gradient, nor the gathered layer."
frees = expect.holds(
    ("step", "between two steps", "its shards are", GONE),
    ("between", "after forward and before backward", "its shards and the activations are", SAVED),
    ("layer_forward", "in the forward of layer {}", "shards, this layer and the activations are", FORWARD),
    ("layer_backward", "in the backward of layer {}", "shards, this layer, its gradients, activations are", BACKWARD),
    ("step_over", "after backward", "its shards and their gradients are", AFTER),
)
travels = expect.sends(
    "gather, gather and reduce-scatter send",
    most=lambda n: SHARE,
    least=lambda n: 2 / 3 * SHARE,  # an answer that gathers once sends less, and `frees` says why not
    advice="Gather once in forward and once in backward; the gradient needs one reduce-scatter.",
    slack=100,
    between=expect.STEP,
)
scatters = expect.forbids("all_reduce", advice="Each rank needs its own part of the mean gradient alone.")

EXERCISE = Exercise(
    name="gathered_layer",
    given=drivers.batches,
    drive=drivers.train_layers,
    expected=oracles.sharded_layers,
    settings={"widths": (5, 7, 3), "rows": (3, 2, 4), "batches": 2, "limits": ()},
    always=(
        expect.equals(
            {"parameters(): the shard of layer": FLAT, "gradient of the shard of layer": MEAN}, oracles.TRAINED
        ),
    ),
    tests=(
        test(
            "Outputs, gradients and two steps are those of one process, at 1 to 4 ranks", on((1, 2, 3)), on(4, **WIDE)
        ),
        test("Sizes that do not divide by the number of ranks work", on(4, widths=(4, 5, 1))),
        test("A rank holds its shards, and a whole layer only while that layer computes", on(4, frees, **WIDE)),
        test(
            "A step is two all-gathers and a reduce-scatter: 3 (n-1)/n of the parameters, and they carry the data",
            *(on(4, scatters, travels, **WIDE), changed_on(2)),
        ),
    ),
)
