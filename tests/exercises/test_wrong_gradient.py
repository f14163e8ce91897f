"""`wrong_gradient`: one's own names, noise taken for a fault, 0/0, an axis where there is a factor, sums over dp."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

by_value(__name__)
NAME = "wrong_gradient"
wrong_gradient = solutions(NAME)[NAME]


def largest(gradients):
    return max(float(each.abs().max()) for each in gradients.values())


def names_alone(gradients, right, at):
    return {"parameters": wrong_gradient(gradients, right, at)["parameters"]}


def own_names(gradients, right, at):
    size = largest(right)
    return {"parameters": sorted(n for n in right if (gradients[n] - right[n]).abs().max() > 1e-9 * size)}


def relative_to_itself(gradients, right, at):
    """A gradient that is zero but for rounding differs from itself by all of it."""
    mine = [n for n in right if (gradients[n] - right[n]).abs().max() > 1e-6 * right[n].abs().max()]
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return {"parameters": sorted({name for each in everyone for name in each})}


def gathers_if_wrong(gradients, right, at):
    """Only ranks that see something wrong tell the others."""
    if own_names(gradients, right, at)["parameters"]:
        return names_alone(gradients, right, at)
    return {"parameters": []}


def mean_of_ratios(gradients, right, at):
    found = wrong_gradient(gradients, right, at)
    ratios = [float((gradients[n] / right[n]).mean()) for n in found["parameters"] if n in gradients]
    ratios = [ratio for ratio in ratios if abs(ratio - 1) > 1e-9 or ratio != ratio]
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, ratios)
    first = next((ratio for each in everyone for ratio in each), 1.0)
    return found | {"factor": 1.0 if found["axis"] else first}


def axis_first(gradients, right, at):
    """Adds up over tp before it asks for a factor: two halves are right together."""
    found = wrong_gradient(gradients, right, at)
    return found | ({"axis": "tp"} if found["factor"] == 0.5 else {})


def factor_and_names(gradients, right, at):
    return wrong_gradient(gradients, right, at) | {"axis": ""}


def sums_over_dp(gradients, right, at):
    """The ranks of dp are added up like those of tp."""
    found = wrong_gradient(gradients, right, at)
    return found | ({"axis": ""} if found["axis"] == "dp" else {})


CHEATS = [  # (answer, the test that sees through it, what it says)
    (own_names, 0, r"rank \d: step \d: parameters is \[.*expected \[.*\n.*A rank sees its own stage"),
    (relative_to_itself, 0, r"step 0: parameters is \['blocks.*key.bias.*expected \[\]\n.*differ in their last digits"),
    (gathers_if_wrong, 0, "Every rank of the group must call a collective"),
    (mean_of_ratios, 1, "step 5: factor is 'nan'|step 5: factor is nan|factor is .*expected 3.0"),
    (axis_first, 2, "step 2: axis is 'tp'; expected ''\n.*ask for a constant factor first"),
    (sums_over_dp, 2, "step 3: axis is ''; expected 'dp'\n.*over dp they are averaged"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, names_alone, "step 0: factor is 'None'|step 0: factor is None")
    assert_ends_a_step(NAME, 2, factor_and_names, "step 1: axis is ''; expected 'tp'")
