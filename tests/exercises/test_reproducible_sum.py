"""`reproducible_sum`: sums in float32 and float64, units that ranks or columns share wrongly, a gather, no rows."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "reproducible_sum"


def plain(rows, group):
    total = rows.sum(0)
    dist.all_reduce(total, group=group)
    return total


def in_float64(rows, group):
    total = rows.double().sum(0)
    dist.all_reduce(total, group=group)
    return total.float()


def whole(rows, group, largest, exponents):
    unit = torch.ldexp(torch.ones(rows.shape[1], dtype=torch.float64, device=rows.device), exponents(largest) - 40)
    total = (rows.double() / unit).round().long().sum(0)
    dist.all_reduce(total, group=group)
    return (total.double() * unit).float()


def largest_of(rows, group):
    largest = torch.cat([rows, rows.new_zeros(1, rows.shape[1])]).abs().amax(0)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    return largest


def own_unit(rows, group):
    return whole(rows, group, rows.abs().amax(0), lambda largest: largest.frexp().exponent)


def one_unit(rows, group):
    largest = largest_of(rows, group)
    return whole(rows, group, largest.max().expand_as(largest), lambda largest: largest.frexp().exponent)


def largest_of_nothing(rows, group):
    largest = rows.abs().amax(0)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    return whole(rows, group, largest, lambda largest: largest.frexp().exponent)


def gathers(rows, group):
    """Right, and sends all rows to all ranks: they are put in order, and added in float64."""
    parts = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, rows.cpu(), group=group)
    return torch.cat(parts).sort(0).values.double().sum(0).float().to(rows.device)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (plain, 1, r"column \d+ is .* on rank 0, world 1, deal 0, and .* on rank .*\n.*rounds after each step"),
    (in_float64, 1, r"column \d+ is .* on rank 0, world 1, deal 0, and .* on rank .*\n.*in float64 too"),
    (own_unit, 0, r"the sum is .*\n.*in the unit that all ranks share"),
    (one_unit, 0, r"column \d+ is 0, the sum is .*\n.*too coarse for a small one"),
    (gathers, 2, r"rank \d sent .*an all-reduce of float32 and one of int64 send .*\n.*may not grow with the rows"),
    (largest_of_nothing, 3, r"at 3 ranks: (.*\n)*.*IndexError: amax"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def in_halves(rows, group):
    """Not a cheat: the high and the low half of each whole number, as two messages of int32."""
    exponent = largest_of(rows, group).frexp().exponent
    scaled = torch.ldexp(rows.double(), 40 - exponent).round().long()
    halves = [(scaled >> 20).sum(0).int(), (scaled & (2**20 - 1)).sum(0).int()]
    for half in halves:
        dist.all_reduce(half, group=group)
    return torch.ldexp(halves[0].double() * 2**20 + halves[1].double(), exponent - 40).float()


def test_another_right_answer_passes():
    assert_passes(NAME, in_halves)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, gathers, "may not grow with the rows")
    assert_ends_a_step(NAME, 2, largest_of_nothing, "IndexError: amax")
