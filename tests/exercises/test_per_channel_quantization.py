"""`per_channel_quantization`: scales that wrong numbers share, codes that are none, and ranges of the test set."""

import pytest
import torch
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

by_value(__name__)
NAME = "per_channel_quantization"
SOLUTION = solutions(NAME)[NAME]


def with_scale(weight, train, test, scale):
    return SOLUTION(weight, train, test) | {"scale": scale, "codes": torch.round(weight / scale).to(torch.int8)}


def per_tensor(weight, train, test):
    return with_scale(weight, train, test, weight.abs().max() / 127)


def of_the_wrong_dim(weight, train, test):
    return with_scale(weight, train, test, weight.abs().amax(0) / 127)


def stores_floats(weight, train, test):
    right = SOLUTION(weight, train, test)
    return right | {"codes": right["codes"] * right["scale"][:, None]}


def calibrates_on_the_test_set(weight, train, test):
    return SOLUTION(weight, [*train, test], test)


def without_a_zero_point(weight, train, test):
    right = SOLUTION(weight, train, test)
    codes = torch.round(test / right["input_scale"]).clamp(0, 255).to(torch.uint8)
    return right | {"input_zero": 0, "input_codes": codes}


def without_clipping(weight, train, test):
    right = SOLUTION(weight, train, test)
    codes = torch.round(test / right["input_scale"]) + right["input_zero"]
    return right | {"input_codes": codes.long().to(torch.uint8)}


CHEATS = [  # (answer, the test that sees through it, what it says)
    (per_tensor, 0, "at 3 ranks: rank 0, weight .*, scale: .*\n.*one scale for the whole weight"),
    (of_the_wrong_dim, 0, "scale: element .*\n.*That is a scale for each input"),
    (stores_floats, 0, "codes: got a torch.float64 tensor .* expected a torch.int8 .*\n.*as large as before"),
    (calibrates_on_the_test_set, 1, "input_scale is .*\n.*Calibration is training"),
    (without_a_zero_point, 1, "input_zero: got 0.*\n.*That grid has no zero point"),
    (without_clipping, 3, "input_codes: element .*\n.*cut to their low 8 bits"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def decoded_first(weight, train, test):
    """Not a cheat: the numbers that codes stand for, summed in floating point; and tensors of one number."""
    right = SOLUTION(weight, train, test)
    inputs = (right["input_codes"].double() - right["input_zero"]) * right["input_scale"]
    outputs = inputs @ (right["codes"] * right["scale"][:, None]).T
    return right | {"outputs": outputs, "input_scale": torch.tensor(right["input_scale"], dtype=torch.float64)}


def test_another_right_answer_passes():
    assert_passes(NAME, decoded_first)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    def weight_alone(weight, train, test):
        right = SOLUTION(weight, train, test)
        return {name: right[name] for name in ("scale", "codes")}

    assert_ends_a_step(NAME, 1, weight_alone, "rank 0, weight .*: the result has no 'input_scale'")
    assert_ends_a_step(NAME, 2, without_clipping, "cut to their low 8 bits")
