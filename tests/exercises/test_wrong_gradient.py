"""`wrong_gradient`: own names, noise taken for a fault, copies that are right, an axis where it is a factor, sums."""

import pytest
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


def everywhere_or_nowhere(gradients, right, at):
    """Asks for the factor on all ranks that have the parameter, also on the stage whose copy is right."""
    found = wrong_gradient(gradients, right, at)
    size = largest(right)
    fits = all(
        (gradients[n] - found["factor"] * right[n]).abs().max() < 1e-9 * size for n in found["parameters"] if n in right
    )
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, bool(fits))
    return found if all(everyone) else found | {"factor": 1.0}


def axis_first(gradients, right, at):
    """Adds up over tp before it asks for a factor: two halves are right together."""
    found = wrong_gradient(gradients, right, at)
    return found | ({"axis": "tp"} if abs(found["factor"] - 0.5) < 1e-9 else {})


def factor_and_names(gradients, right, at):
    return wrong_gradient(gradients, right, at) | {"axis": ""}


def sums_over_dp(gradients, right, at):
    """The ranks of dp are added up like those of tp."""
    found = wrong_gradient(gradients, right, at)
    return found | ({"axis": ""} if found["axis"] == "dp" else {})


CHEATS = [  # (answer, the test that sees through it, what it says)
    (own_names, 0, r"rank \d: step \d: parameters is \[.*expected \[.*\n.*A rank sees its own stage"),
    (relative_to_itself, 0, r"step 0: parameters is \['blocks.*key.bias.*expected \[\]\n.*differ in their last digits"),
    (everywhere_or_nowhere, 1, "step 5: factor is 1.0; expected 3.0\n.*the stage that is right does not count"),
    (axis_first, 2, "step 2: axis is 'tp'; expected ''\n.*ask for a constant factor first"),
    (sums_over_dp, 2, "step 3: axis is ''; expected 'dp'\n.*over dp they are averaged"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, names_alone, "step 0: factor is None")
    assert_ends_a_step(NAME, 2, factor_and_names, "step 1: axis is ''; expected 'tp'")
