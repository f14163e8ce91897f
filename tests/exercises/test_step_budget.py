"""`step_budget`: the usual wrong counts fail, and the message says what they are."""

import pytest
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

from parallel_lab.model import formulas
from parallel_lab.model.gpt import GPT

by_value(__name__)
NAME = "step_budget"
SOLUTION = solutions(NAME)[NAME]


def tied_counted_twice(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"parameters": right["parameters"] + config.tied * config.vocab * config.width}


def without_the_last_norm(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"parameters": right["parameters"] - (1 + config.bias) * config.width}


def twelve_h_squared(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    wrong = (8 - 2 * config.mlp_ratio) * config.layers * config.width**2
    return right | {"parameters": right["parameters"] + wrong}


def forward_alone(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"flops": right["flops"] // 3}


def six_n_d(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"flops": 6 * right["parameters"] * batch * config.seq}


def tables_multiply(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    tables = (config.vocab + config.seq) * config.width
    return right | {"flops": right["flops"] + 6 * batch * config.seq * tables}


def sixteen_bytes(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"state_bytes": 16 * right["parameters"]}


def attention(config, batch, pairs):
    """FLOPs of one of its two products, over all layers."""
    return 2 * config.layers * batch * pairs * config.width


def attention_forward_alone(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"flops": right["flops"] - 4 * attention(config, batch, config.seq**2)}


def no_attention(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"flops": right["flops"] - 6 * attention(config, batch, config.seq**2)}


def one_product_of_attention(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"flops": right["flops"] - 3 * attention(config, batch, config.seq**2)}


def no_output_layer(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"flops": right["flops"] - 6 * batch * config.seq * config.vocab * config.width}


def causal_over_the_square(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {"causal_flops": right["flops"]}


def causal_attention_forward_alone(config, batch, kept):
    right, pairs = SOLUTION(config, batch, kept), config.seq * (config.seq + 1) // 2
    return right | {"causal_flops": right["causal_flops"] - 4 * attention(config, batch, pairs)}


def half_the_square(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    return right | {
        "causal_flops": right["flops"] - 6 * config.layers * batch * config.seq**2 * config.width,
    }


def half_the_square_rounded_down(config, batch, kept):
    right = SOLUTION(config, batch, kept)
    unseen = config.seq**2 - config.seq**2 // 2
    return right | {"causal_flops": right["flops"] - 12 * config.layers * batch * unseen * config.width}


def the_formulas(config, batch, kept):
    return {"parameters": formulas.parameter_count(config)}


def builds_the_model(config, batch, kept):
    parameters = sum(p.numel() for p in GPT(config).parameters())
    return {"parameters": parameters, "state_bytes": parameters * sum(dtype.itemsize for dtype in kept)}


def forgets_the_norms(config, batch, kept):
    right, norm = SOLUTION(config, batch, kept), (1 + config.bias) * config.width
    return right | {"parameters": right["parameters"] - (2 * config.layers + 1) * norm}


def never_returned(config, batch, kept):
    SOLUTION(config, batch, kept)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (tied_counted_twice, 0, "rank 0, GPTConfig.*: parameters is .*\n.*counts a tied output layer by itself"),
    (without_the_last_norm, 0, "parameters is .*\n.*That leaves out a norm"),
    (twelve_h_squared, 0, "parameters is .*\n.*That takes 12 h"),
    (forgets_the_norms, 0, "bias=(True|False)\\), batch .: parameters is .*\n.*That leaves out the norms"),
    (never_returned, 0, "returned None, expected a dict with parameters\n +Is there a `return`?"),
    (sixteen_bytes, 0, "state_bytes is .*\n.*That is 16 bytes for each parameter"),
    (forward_alone, 2, "flops is .*\n.*That is forward alone"),
    (six_n_d, 2, "flops is .*\n.*That is 6 N per token"),
    (tables_multiply, 2, "flops is .*\n.*That multiplies with the tables"),
    (attention_forward_alone, 2, "flops is .*\n.*That counts attention in forward only"),
    (attention_forward_alone, 4, "flops is .*\n.*That counts attention in forward only"),
    (no_attention, 4, "flops is .*\n.*That leaves attention out"),
    (one_product_of_attention, 4, "flops is .*\n.*That is one product of attention"),
    (no_output_layer, 4, "flops is .*\n.*That leaves the output layer out"),
    (causal_over_the_square, 3, "causal_flops is .*\n.*That is attention over the full square"),
    (causal_attention_forward_alone, 3, "causal_flops is .*\n.*That counts attention in forward only"),
    (half_the_square, 3, "causal_flops is .*\n.*Token i sees i \\+ 1 tokens"),
    (half_the_square_rounded_down, 3, "causal_flops is .*\n.*(Half of the square|Token i sees)"),
    (the_formulas, 0, "the_formulas uses parallel_lab.model.formulas"),
    (builds_the_model, 1, "memory"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def sizes_alone(config, batch, kept):
    return {key: SOLUTION(config, batch, kept)[key] for key in ("parameters", "state_bytes")}


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, sizes_alone, "rank 0: the result has no 'flops'")
