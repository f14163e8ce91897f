"""`norm_over_axes`: copies counted each time, a norm for each stage, experts taken for copies, sums of roots."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

by_value(__name__)
NAME = "norm_over_axes"
norm_over_axes = solutions(NAME)[NAME]


def summed(counts, held, at, over=None):
    """The root of the squares of what `counts`, over all ranks; `over` says who else has been added up."""
    total = torch.zeros((), dtype=torch.float64)
    for each in held.values():
        if each["gradient"] is not None and counts(each, at):
            total += each["gradient"].square().sum()
    dist.all_reduce(total)
    return total.sqrt()


def first_data_rank(each, at):
    return not at["edp" if each["expert"] else "dp_cp"]


def first_of_tp(each, at):
    return each["cut"] or not at["tp"]


def first_stage(each, at):
    return not (each["tied"] and at["pp"])


def copies_of_tp(held, at):
    return summed(lambda each, at: first_data_rank(each, at) and first_stage(each, at), held, at)


def each_data_rank(held, at):
    return summed(lambda each, at: first_of_tp(each, at) and first_stage(each, at), held, at)


def own_stage(held, at):
    """Each rank takes what its own stage has; the sum over all ranks is masked."""
    stages = [torch.zeros((), dtype=torch.float64) for _ in range(3)]
    for each in held.values():
        if each["gradient"] is not None and first_data_rank(each, at) and first_of_tp(each, at):
            stages[at["pp"]] += each["gradient"].square().sum()
    flat = torch.stack(stages)
    dist.all_reduce(flat)
    return flat[at["pp"]].sqrt()


def tied_twice(held, at):
    return summed(lambda each, at: first_data_rank(each, at) and first_of_tp(each, at), held, at)


def first_experts(held, at):
    return summed(lambda each, at: not at["dp_cp"] and first_of_tp(each, at) and first_stage(each, at), held, at)


def sum_of_roots(held, at):
    """Norms are added up, not their squares."""
    total = torch.zeros((), dtype=torch.float64)
    for each in held.values():
        mine = first_data_rank(each, at) and first_of_tp(each, at) and first_stage(each, at)
        if each["gradient"] is not None and mine:
            total += each["gradient"].square().sum()
    total = total.sqrt()
    dist.all_reduce(total)
    return total


CHEATS = [  # (answer, the test that sees through it, what it says)
    (copies_of_tp, 0, r"layout \(1, 1, 1, 2, 1\): what is whole on each rank of tp counted there each time"),
    (each_data_rank, 0, "what all data ranks have counted on each of them"),
    (sum_of_roots, 0, "the norm is .* expected .*\n.*Count each number of the model on one rank alone"),
    (own_stage, 1, "each stage has a norm of its own"),
    (tied_twice, 1, "the tied weight counted twice"),
    (first_experts, 2, "only the experts of the first rank of ep counted"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, tied_twice, "the tied weight counted twice")
    assert_ends_a_step(NAME, 2, first_experts, "only the experts of the first rank of ep counted")
