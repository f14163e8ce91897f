"""Arguments: what is taken, and how the rest is refused."""

import pytest
import torch

from parallel_lab.agree.arguments import check_rate, keyword_only, number, whole


def test_whole_numbers():
    assert whole("steps", 3) == 3
    assert whole("bound", 0, least=0) == 0


@pytest.mark.parametrize("value", [1.0, "3", None, True, torch.tensor(3)])
def test_what_is_no_whole_number(value):
    with pytest.raises(TypeError, match=r"^steps=.*expected a whole number of at least 1"):
        whole("steps", value)


@pytest.mark.parametrize(("value", "least"), [(0, 1), (-1, 0)])
def test_whole_numbers_that_are_too_small(value, least):
    with pytest.raises(ValueError, match=f"^steps={value}: expected at least {least}$"):
        whole("steps", value, least)


@pytest.mark.parametrize("value", [0, 2, 0.5, torch.tensor(0.5), torch.tensor([0.5])])
def test_numbers(value):
    assert number("lr", value) == float(value)
    check_rate({"lr": value})


@pytest.mark.parametrize("value", ["0.1", None, True, [0.1], torch.zeros(2), 1j])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^lr=.*expected a number, as in lr=0\.1"):
        check_rate({"lr": value})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), torch.tensor(-1.0)])
def test_numbers_out_of_range(value):
    with pytest.raises(ValueError, match=r"^lr=.*expected a finite number of at least 0"):
        number("lr", value)


def test_an_argument_without_its_name_is_told_how_the_call_is_written():
    class Optimizer:
        @keyword_only("lr")
        def __init__(self, params, optimizer_class, *, group=None, **settings):
            self.given = (params, optimizer_class, group, settings)

    assert Optimizer([1], dict, lr=0.1).given == ([1], dict, None, {"lr": 0.1})
    with pytest.raises(TypeError, match=r"\(float\): write Optimizer\(params, optimizer_class, lr=..., group=...\)"):
        Optimizer([1], dict, 0.1)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Optimizer([1])
