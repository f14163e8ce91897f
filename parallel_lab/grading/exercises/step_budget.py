"""Chapter 01: what a training step of a GPT holds and computes (Kaplan et al. 2020, section 2.1)."""

from parallel_lab.grading import counted
from parallel_lab.grading.exercise import Exercise, on

sizes = counted.counts(
    "parameters", "state_bytes",
    mistakes={
        "That counts a tied output layer by itself: it is the token embedding's weight.": (
            lambda config, batch, right: right["parameters"] + config.vocab * config.width
        ),
        "That counts the matrices alone. What else has a parameter: tables, norms, biases?": (
            lambda config, batch, right: (4 + 2 * config.mlp_ratio) * config.layers * config.width**2
        ),
    },
)  # fmt: skip
work = {
    "That is forward alone. How many products does backward need for each of forward?": (
        lambda config, batch, right: right["flops"] / 3
    ),
    "That is 6 N a token, with all parameters for N: a lookup multiplies nothing, and attention is missing.": (
        lambda config, batch, right: 6 * right["parameters"] * batch * config.seq
    ),
    "Token t sees t + 1 tokens, itself too: that is a little more than half of the square.": (
        lambda config, batch, right: right["flops"] - 6 * config.layers * batch * config.seq**2 * config.width
    ),
}

EXERCISE = Exercise(
    name="step_budget",
    given=counted.shapes,
    expected=counted.counted,
    tests={
        # Step 1
        "Parameters, and bytes of state, of four random models": on(4, sizes),
        "The same for GPT-3, which no rank can build": on(1, sizes, config=counted.GPT3),
        # Step 2
        "FLOPs of a step, attention over the full square": on(4, counted.counts("flops", mistakes=work)),
        "FLOPs of a step, attention over what a token sees": on(4, counted.counts("causal_flops", mistakes=work)),
        "FLOPs of a step of GPT-3": on(1, counted.counts("flops", mistakes=work), config=counted.GPT3),
    },
)
