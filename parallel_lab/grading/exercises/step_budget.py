"""Chapter 01: what a training step of a GPT holds and computes (Kaplan et al. 2020, section 2.1)."""

from parallel_lab.grading import counted
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.model.gpt import GPTConfig

TIED = "That counts a tied output layer by itself: it is the token embedding's weight."
MATRICES = "That counts the matrices alone. What else has a parameter: tables, norms, biases?"
NORM = "That leaves out a norm: each block has two, and one more stands before the output layer."
RATIO = "That takes 12 h^2 per block, which holds for an mlp_ratio of 4."
SIXTEEN = "That is 16 bytes for each parameter: `kept` says what is kept of it here, and 16 is one recipe of three."
FORWARD = "That is forward alone. How many products does backward need for each of forward?"
NAPKIN = "That is 6 N per token, with all parameters for N: a lookup multiplies nothing, and attention is missing."
TABLES = "That multiplies with the tables of tokens and positions too: a row of them is looked up."
NO_ATTENTION = "That leaves attention out: queries times keys, and probabilities times values, multiply no weight."
ATTENTION_FORWARD = (
    "That counts attention in forward only. Each of its products has two more in backward, as a linear has."
)
ONE_PRODUCT = "That is one product of attention. It has two: queries times keys, and probabilities times values."
NO_HEAD = "That leaves the output layer out: it multiplies each token with the whole vocabulary, tied or not."
SQUARE = "That is attention over the full square. Here token t is multiplied with the t + 1 tokens only that it sees."
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
    SIXTEEN: lambda config, batch, right: 16 * right["parameters"],
}


def _attention(config: GPTConfig, batch: int, pairs: float) -> float:
    """FLOPs of one product of attention, where each token of a sequence sees so many `pairs` in all."""
    return 2 * config.layers * batch * pairs * config.width


def _lower(config: GPTConfig) -> int:
    """The pairs of a token and one that it sees, itself included."""
    return config.seq * (config.seq + 1) // 2


OF_FLOPS = {
    FORWARD: lambda config, batch, right: right["flops"] / 3,
    NAPKIN: lambda config, batch, right: 6 * right["parameters"] * batch * config.seq,
    TABLES: lambda config, batch, right: (
        right["flops"] + 6 * batch * config.seq * (config.vocab + config.seq) * config.width
    ),
    ATTENTION_FORWARD: lambda config, batch, right: right["flops"] - 4 * _attention(config, batch, config.seq**2),
    NO_ATTENTION: lambda config, batch, right: right["flops"] - 6 * _attention(config, batch, config.seq**2),
    ONE_PRODUCT: lambda config, batch, right: right["flops"] - 3 * _attention(config, batch, config.seq**2),
    NO_HEAD: lambda config, batch, right: right["flops"] - 6 * batch * config.seq * config.vocab * config.width,
}
OF_CAUSAL = {
    SQUARE: lambda config, batch, right: right["flops"],
    NO_ATTENTION: lambda config, batch, right: right["flops"] - 6 * _attention(config, batch, config.seq**2),
    ATTENTION_FORWARD: lambda config, batch, right: (
        right["causal_flops"] - 4 * _attention(config, batch, _lower(config))
    ),
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
