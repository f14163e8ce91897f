"""The usual miscounts of a GPT's training step: what each says of itself, and the number that it comes to.

A number is a function of (config, batch, what is right); what is right has `parameters`, `state_bytes`, `flops`, and
`causal_flops` of a short sequence.
"""

import math
from collections.abc import Callable

from parallel_lab.model.config import GPTConfig

Mistake = Callable[[GPTConfig, int, dict], float]


def _norm(config: GPTConfig) -> int:
    """The parameters of one norm."""
    return (2 if config.bias else 1) * config.width


def _norms(config: GPTConfig) -> int:
    return 2 * config.layers + 1


def _tables(config: GPTConfig) -> int:
    """The parameters of the tables of tokens and positions."""
    return (config.vocab + config.seq) * config.width


def _biases(config: GPTConfig, outputs: int) -> int:
    """The biases of linears with so many times `width` outputs in each block."""
    return outputs * config.layers * config.width if config.bias else 0


def _square(config: GPTConfig, count: float) -> float:
    """The parameters of so many matrices of width by width in each block."""
    return count * config.layers * config.width**2


def _less(part: Callable[[GPTConfig], float]) -> Mistake:
    """The parameters without those of a part; with a negative one, too many."""
    return lambda config, batch, right: right["parameters"] - part(config)


OF_SIZES: dict[str, Mistake] = {
    "That counts a tied output layer by itself: it is the token embedding's weight.": _less(
        lambda config: -config.vocab * config.width * config.tied
    ),
    "Where `tied` is not set, the output layer has a weight of its own.": _less(
        lambda config: config.vocab * config.width * (not config.tied)
    ),
    "That counts the matrices alone. What else has a parameter: tables, norms, biases?": (
        lambda config, batch, right: _square(config, 4 + 2 * config.mlp_ratio)
    ),
    "That is 12 L h^2: it holds for an mlp_ratio of 4, and has no tables, norms or biases.": (
        lambda config, batch, right: _square(config, 12)
    ),
    "That is 12 L h^2 and the table of tokens, which is near it for large models. Here every parameter counts.": (
        lambda config, batch, right: _square(config, 12) + config.vocab * config.width
    ),
    "That counts matrices and tables. What else has a parameter: norms, and biases where `bias` is set?": _less(
        lambda config: _norms(config) * _norm(config) + _biases(config, 5 + config.mlp_ratio)
    ),
    "That takes 12 h^2 per block, which holds for an mlp_ratio of 4.": _less(
        lambda config: _square(config, 2 * config.mlp_ratio - 8)
    ),
    "That leaves out a norm: each block has two, and one more stands before the output layer.": _less(_norm),
    "That leaves out the norms: each block has two, and one more stands before the output layer.": _less(
        lambda config: _norms(config) * _norm(config)
    ),
    "That leaves out the norms of the blocks: each block has two.": _less(
        lambda config: (_norms(config) - 1) * _norm(config)
    ),
    "That is one norm a block. Each has two: before attention, and before the feed-forward part.": _less(
        lambda config: config.layers * _norm(config)
    ),
    "A norm has a weight and, where `bias` is set, a bias: two vectors.": _less(
        lambda config: _norms(config) * config.width * config.bias
    ),
    "Where `bias` is not set, a norm has no bias either.": _less(
        lambda config: -_norms(config) * config.width * (not config.bias)
    ),
    "That leaves out the biases: where `bias` is set, a linear has one for each of its outputs.": _less(
        lambda config: _biases(config, 5 + config.mlp_ratio)
    ),
    "That leaves out all biases: where `bias` is set, each linear of a block and each norm has one.": _less(
        lambda config: _biases(config, 5 + config.mlp_ratio) + _norms(config) * config.width * config.bias
    ),
    "That leaves out the biases of attention: its four linears have one for each output.": _less(
        lambda config: _biases(config, 4)
    ),
    "That leaves out the biases of the feed-forward part: its two linears have one for each output.": _less(
        lambda config: _biases(config, 1 + config.mlp_ratio)
    ),
    "The hidden layer of the feed-forward part is mlp_ratio times as wide, and so is its bias.": _less(
        lambda config: _biases(config, config.mlp_ratio - 1)
    ),
    "That counts biases also where `bias` is not set.": _less(
        lambda config: (not config.bias) * -config.width * ((5 + config.mlp_ratio) * config.layers + _norms(config))
    ),
    "The output layer has no bias, whatever `bias` says.": _less(lambda config: -config.vocab),
    "The output layer never has a bias, also where `bias` is set.": _less(lambda config: -config.vocab * config.bias),
    "That leaves out the table of positions: a row for each place of a sequence.": _less(
        lambda config: config.seq * config.width
    ),
    "That leaves out the table of tokens: a row for each token of the vocabulary.": _less(
        lambda config: config.vocab * config.width
    ),
    "That leaves out the tables of tokens and of positions.": _less(_tables),
    "That is three matrices of attention a block. A fourth puts the heads together again.": _less(
        lambda config: _square(config, 1)
    ),
    "That is one matrix of the feed-forward part. It has two: to mlp_ratio times the width, and back.": _less(
        lambda config: _square(config, config.mlp_ratio)
    ),
}


def _each(count: int) -> Mistake:
    """So many bytes for each parameter."""
    return lambda config, batch, right: count * right["parameters"]


ENTRIES = "Add up the bytes of all entries of `kept`: weight, gradients, master copy, two moments."
OF_STATE: dict[str, Mistake] = {
    "That is 16 bytes for each parameter: `kept` says what is kept of it here, and 16 is one recipe of three.": _each(
        16
    ),
    **{f"That is {n} bytes for each parameter. {ENTRIES}": _each(n) for n in (2, 4, 6, 8, 10, 12, 14, 18, 20, 24)},
    "That is bits. A byte has eight.": lambda config, batch, right: 8 * right["state_bytes"],
    "That is the state of one parameter. How many has the model?": (
        lambda config, batch, right: right["state_bytes"] / right["parameters"]
    ),
}


def attention(config: GPTConfig, batch: int, pairs: float) -> float:
    """FLOPs of one product of attention, where each token of a sequence sees so many `pairs` in all."""
    return 2 * config.layers * batch * pairs * config.width


def _lower(config: GPTConfig) -> int:
    """The pairs of a token and one that it sees, itself included."""
    return config.seq * (config.seq + 1) // 2


def _linears(config: GPTConfig, batch: int, right: dict) -> float:
    """FLOPs of all that is no attention."""
    return right["flops"] - 6 * attention(config, batch, config.seq**2)


def _six(config: GPTConfig, batch: int, parameters: float) -> float:
    """Of so many parameters, 6 FLOPs each and a token."""
    return 6 * batch * config.seq * parameters


def _factors(of: str) -> dict[str, Mistake]:
    """What is off by a factor in the count `of` FLOPs."""
    return {
        "That is forward alone. How many products does backward need for each of forward?": (
            lambda config, batch, right: right[of] // 3
        ),
        "That counts one product in backward for each of forward. A linear's backward has two.": (
            lambda config, batch, right: right[of] * 2 // 3
        ),
        "That has forward twice, as where activations are recomputed. Here nothing is.": (
            lambda config, batch, right: right[of] * 4 // 3
        ),
        "That is one FLOP for a multiplication with its addition: they are two.": (
            lambda config, batch, right: right[of] / 2
        ),
        "That is one sequence. A step has a batch of them.": lambda config, batch, right: right[of] / batch,
        "That is one token. A step has batch times seq of them.": (
            lambda config, batch, right: right[of] / (batch * config.seq)
        ),
    }


NO_ATTENTION = "That leaves attention out: queries times keys, and probabilities times values, multiply no weight."
ATTENTION_FORWARD = (
    "That counts attention in forward only. Each of its products has two more in backward, as a linear has."
)
ONE_PRODUCT = "That is one product of attention. It has two: queries times keys, and probabilities times values."
HEADS = "All heads together are as wide as the model: how many heads there are changes nothing."
OF_FLOPS: dict[str, Mistake] = {
    **_factors("flops"),
    "That is 6 N per token, with all parameters for N: a lookup multiplies nothing, and attention is missing.": (
        lambda config, batch, right: _six(config, batch, right["parameters"])
    ),
    "That is 2 N per token: forward alone, with all parameters for N, and without attention.": (
        lambda config, batch, right: _six(config, batch, right["parameters"]) / 3
    ),
    "That takes all parameters for those that multiply: a lookup, a bias and a norm multiply no matrix.": (
        lambda config, batch, right: (
            _six(config, batch, right["parameters"]) + right["flops"] - _linears(config, batch, right)
        )
    ),
    "That takes all but the tables for what multiplies. Biases and norms do not, and attention is missing.": (
        lambda config, batch, right: _six(config, batch, right["parameters"] - _tables(config))
    ),
    "That takes all but the tables for what multiplies. Biases and norms do not; a tied table does, at the output.": (
        lambda config, batch, right: (
            _six(config, batch, right["parameters"] - _tables(config)) + right["flops"] - _linears(config, batch, right)
        )
    ),
    "That multiplies with the biases: they are added.": (
        lambda config, batch, right: right["flops"] + _six(config, batch, _biases(config, 5 + config.mlp_ratio))
    ),
    "That multiplies with the tables of tokens and positions too: a row of them is looked up.": (
        lambda config, batch, right: right["flops"] + _six(config, batch, _tables(config))
    ),
    "That multiplies with the table of tokens beside the output layer: a row of it is looked up.": (
        lambda config, batch, right: right["flops"] + _six(config, batch, config.vocab * config.width)
    ),
    "That multiplies with the table of positions: a row of it is looked up.": (
        lambda config, batch, right: right["flops"] + _six(config, batch, config.seq * config.width)
    ),
    "That leaves the output layer out: it multiplies each token with the whole vocabulary, tied or not.": (
        lambda config, batch, right: right["flops"] - _six(config, batch, config.vocab * config.width)
    ),
    "Tied or not, the output layer multiplies: its weight is the table, but it is no lookup.": (
        lambda config, batch, right: right["flops"] - _six(config, batch, config.vocab * config.width * config.tied)
    ),
    NO_ATTENTION: _linears,
    ATTENTION_FORWARD: lambda config, batch, right: right["flops"] - 4 * attention(config, batch, config.seq**2),
    ONE_PRODUCT: lambda config, batch, right: right["flops"] - 3 * attention(config, batch, config.seq**2),
    f"That is attention for each head as wide as the model. {HEADS}": (
        lambda config, batch, right: right["flops"] + 6 * attention(config, batch, config.seq**2) * (config.heads - 1)
    ),
    f"That is the attention of one head. {HEADS}": (
        lambda config, batch, right: (
            _linears(config, batch, right) + 6 * attention(config, batch, config.seq**2) / config.heads
        )
    ),
    "That is the attention of one layer.": (
        lambda config, batch, right: (
            _linears(config, batch, right) + 6 * attention(config, batch, config.seq**2) / config.layers
        )
    ),
    "That is attention over what a token sees. Here it is over the full square.": (
        lambda config, batch, right: right.get("causal_flops", math.nan)
    ),
}


def _causal(factor: float, pairs: Callable[[GPTConfig], float]) -> Mistake:
    """All that is no attention, and `factor` products of attention over so many pairs."""
    return lambda config, batch, right: (
        _linears(config, batch, right) + factor * attention(config, batch, pairs(config))
    )


ITSELF = "there are s (s + 1) / 2 pairs, since token i sees itself too."
OF_CAUSAL: dict[str, Mistake] = {
    **_factors("causal_flops"),
    "That is attention over the full square. Here token i is multiplied with the i + 1 tokens only that it sees.": (
        lambda config, batch, right: right["flops"]
    ),
    "That halves everything. Only attention has less to do: a linear sees every token.": (
        lambda config, batch, right: right["flops"] / 2
    ),
    NO_ATTENTION: _linears,
    ATTENTION_FORWARD: _causal(2, _lower),
    ONE_PRODUCT: _causal(3, _lower),
    "That leaves one product of attention over the square: what is not seen is spared in both.": (
        lambda config, batch, right: (
            (right["flops"] + _linears(config, batch, right)) / 2 + 3 * attention(config, batch, _lower(config))
        )
    ),
    "Token i sees i + 1 tokens, itself too: that is a little more than half of the square.": _causal(
        6, lambda config: config.seq**2 / 2
    ),
    f"Half of the square leaves half a token out: {ITSELF}": _causal(6, lambda config: config.seq**2 // 2),
    f"That leaves the token itself out: {ITSELF}": _causal(6, lambda config: config.seq * (config.seq - 1) // 2),
}
