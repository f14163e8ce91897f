"""Chapter 01: what a training step of a GPT holds and computes (Kaplan et al. 2020, section 2.1)."""

from parallel_lab.grading import counted
from parallel_lab.grading.exercise import Exercise, on

TIED = "That counts a tied output layer by itself: it is the token embedding's weight."
MATRICES = "That counts the matrices alone. What else has a parameter: tables, norms, biases?"
NORM = "That leaves out a norm: each block has two, and one more stands before the output layer."
RATIO = "That takes 12 h^2 per block, which holds for an mlp_ratio of 4."
FORWARD = "That is forward alone. How many products does backward need for each of forward?"
NAPKIN = "That is 6 N per token, with all parameters for N: a lookup multiplies nothing, and attention is missing."
TABLES = "That multiplies with the tables of tokens and positions too: a row of them is looked up."
HALF = "Token t sees t + 1 tokens, itself too: that is a little more than half of the square."
HALF_DOWN = "Half of the square leaves half a token out: there are s (s + 1) / 2 pairs, since token t sees itself too."

# A usual mistake and what it comes to.
OF_SIZES = {
    TIED: lambda config, batch, right: right["parameters"] + config.vocab * config.width,
    MATRICES: lambda config, batch, right: (4 + 2 * config.mlp_ratio) * config.layers * config.width**2,
    NORM: lambda config, batch, right: right["parameters"] - (2 if config.bias else 1) * config.width,
    RATIO: lambda config, batch, right: (
        right["parameters"] + (8 - 2 * config.mlp_ratio) * config.layers * config.width**2
    ),
}
OF_FLOPS = {
    FORWARD: lambda config, batch, right: right["flops"] / 3,
    NAPKIN: lambda config, batch, right: 6 * right["parameters"] * batch * config.seq,
    TABLES: lambda config, batch, right: (
        right["flops"] + 6 * batch * config.seq * (config.vocab + config.seq) * config.width
    ),
}
OF_CAUSAL = {
    HALF: lambda config, batch, right: right["flops"] - 6 * config.layers * batch * config.seq**2 * config.width,
    HALF_DOWN: lambda config, batch, right: (
        right["flops"] - 12 * config.layers * batch * (config.seq**2 - config.seq**2 // 2) * config.width
    ),
}
sizes = counted.counts("parameters", "state_bytes", mistakes=OF_SIZES)
flops, causal_flops = counted.counts("flops", mistakes=OF_FLOPS), counted.counts("causal_flops", mistakes=OF_CAUSAL)

EXERCISE = Exercise(
    name="step_budget",
    given=counted.shapes,
    expected=counted.counted,
    tests={
        # Step 1
        "Parameters, and bytes of state, of four random models": on(4, sizes),
        "The same for GPT-3, which no rank can build": on(1, sizes, config=counted.GPT3),
        # Step 2
        "FLOPs of a step, attention over the full square": on(4, flops),
        "FLOPs of a step, attention over what a token sees": on(4, causal_flops),
        "FLOPs of a step of GPT-3": on(1, flops, config=counted.GPT3),
    },
)
