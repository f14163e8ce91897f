"""`step_time`: no recomputation, no output layer, twice the tensor, another bubble, the whole model's gradients."""

import numpy as np
import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

by_value(__name__)
NAME = "step_time"
SOLUTION = solutions(NAME)[NAME]


def no_recomputation(facts):
    return SOLUTION({**facts, "recompute": False})


def no_output_layer(facts):
    return SOLUTION({**facts, "vocab": 0})


def whole_tensor_twice(facts):
    right = SOLUTION(facts)
    return right | {"tensor_s": right["tensor_s"] * facts["tp"] / max(1, facts["tp"] - 1)}


def share_of_the_total(facts):
    right = SOLUTION(facts)
    m = facts["chunks"] * facts["batch"] / facts["dp"] / facts["microbatch"]
    busy_s = right["compute_s"] + right["tensor_s"]
    return right | {"bubble_s": busy_s * (facts["pp"] - 1) / (m + facts["pp"] - 1)}


def one_pipeline_sees_the_batch(facts):
    right = SOLUTION(facts)
    return right | {"bubble_s": right["bubble_s"] / facts["dp"]}


def gradients_of_the_model(facts):
    return SOLUTION(facts) | {"data_s": SOLUTION({**facts, "pp": 1, "tp": 1})["data_s"]}


CHEATS = [  # (answer, the test that sees through it, what it says)
    (no_recomputation, 0, r"compute_s is .* s, expected .* s\n.*does the forward pass of the layers once more"),
    (no_output_layer, 1, r"compute_s is .* s, expected .* s\n.*The output layer multiplies too"),
    (whole_tensor_twice, 2, r"tensor_s is .*\n.*each rank sends 2 \(n - 1\)/n"),
    (share_of_the_total, 4, r"bubble_s is .*\n.*a share of the whole step"),
    (one_pipeline_sees_the_batch, 4, r"bubble_s is .*\n.*if dp of them share the batch"),
    (gradients_of_the_model, 5, r"data_s is .*\n.*By which degrees is the model cut"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_what_is_no_number_is_said():
    assert_found_out(NAME, lambda facts: None, 0, "got None.*, expected a dict with compute_s")
    assert_found_out(NAME, lambda facts: [1.0], 0, "expected a dict with compute_s")
    assert_found_out(NAME, lambda facts: {"compute_s": float("nan")}, 0, "expected a number of seconds")
    assert_found_out(NAME, lambda facts: {"compute_s": "1 s"}, 0, "expected a number of seconds")


def in_numpy(facts):
    """Not a cheat: numbers of numpy are numbers."""
    return {key: np.float64(value) for key, value in SOLUTION(facts).items()}


def test_another_right_answer_passes():
    assert_passes(NAME, in_numpy)


def first_step(facts):
    return {"compute_s": SOLUTION(facts)["compute_s"]}


def second_step(facts):
    return {key: SOLUTION(facts)[key] for key in ("compute_s", "tensor_s")}


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, first_step, "expected a dict with compute_s, tensor_s")
    assert_ends_a_step(NAME, 2, second_step, "expected a dict with compute_s, tensor_s, bubble_s, data_s, step_s")
