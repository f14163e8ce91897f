"""Checksums find every bit flipped after the all-reduce, norms only large ones, and nobody a small one before it."""

import math

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.resilience import bit_table, compare_replicas, flip, held_by, is_outlier
from parallel_lab.systems.resilience.corruption import checksum
from parallel_lab.systems.resilience.flipped_bits import CHECKS, PLACES

pytestmark = pytest.mark.usefixtures("by_value")


def test_every_single_flip_changes_the_checksum():
    tensor = torch.randn(97)
    seen = {checksum([tensor])}
    for element in range(0, 97, 8):
        for bit in range(32):
            flip(tensor, element, bit)
            seen.add(checksum([tensor]))
            flip(tensor, element, bit)
    assert len(seen) == 1 + 13 * 32


def test_swapped_tensors_and_other_types_have_another_checksum():
    a, b = torch.arange(4.0), torch.arange(4.0, 8.0)
    sums = {checksum([a, b]), checksum([b, a]), checksum([a.double(), b]), checksum([a.bfloat16(), b]), checksum([])}
    assert len(sums) == 5 and checksum([a.clone(), b.clone()]) == checksum([a, b])
    assert checksum([torch.complex(a, b), torch.ones(2, dtype=torch.bool)])


def test_flip_refuses_what_it_cannot_flip():
    with pytest.raises(ValueError, match="float32"):
        flip(torch.ones(2, dtype=torch.float64), 0, 0)
    with pytest.raises(ValueError, match="element 2, bit 0"):
        flip(torch.ones(2), 2, 0)


def test_the_majority_names_a_rank_and_two_ranks_cannot():
    def fn():
        rank = dist.get_rank()
        groups = {n: dist.new_group(list(range(n))) for n in (2, 3, 4)}
        model = torch.nn.Linear(3, 5)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        found = [compare_replicas(held_by(model, optimizer))]
        if rank == 1:
            flip(optimizer.state[model.weight]["exp_avg"], 4, 0)
        found += [compare_replicas(held_by(model, optimizer), group=g) for n, g in groups.items() if rank < n]
        if rank == 3:
            flip(model.weight, 0, 5)
        return [*found, compare_replicas(held_by(model, optimizer))]

    same, two, three, four, differ = launch(fn, ranks=4)[0]
    assert same.equal and not same.odd and "all 4 replicas hold the same bits" in str(same)
    assert not two.equal and two.odd == () and "nobody can say which is wrong" in str(two)
    assert three.odd == four.odd == (1,) and str(four) == "rank 1 of 4 differs from the majority"
    assert differ.odd == () and not differ.equal


def test_outliers():
    usual = [1.0, 1.1, 0.9, 1.05, 0.95] * 4
    assert not is_outlier(1.2, usual) and is_outlier(3.0, usual) and is_outlier(math.nan, [])
    assert not is_outlier(3.0, usual[:5]), "too few to judge by"
    assert not is_outlier(1.1, [*usual[:-2], 1e9, -1e9]), "two outliers do not widen the band"


def test_which_check_finds_which_bit():
    table = bit_table([0, 16, 30, 31], elements=2)
    assert (
        set(table.false_alarms) == set(CHECKS) and table.false_alarms["weights"] == table.false_alarms["moments"] == 0
    )
    for bit in (0, 16, 30, 31):
        before, _, weight = (table.found[place, bit] for place in PLACES)
        assert before["weights"] == before["moments"] == 0, "an all-reduce spreads what is wrong: replicas are equal"
        assert weight["weights"] == 2
    assert table.missed(PLACES[0], 0) and table.missed(PLACES[0], 16), "a mantissa bit shows in no norm"
    assert table.found[PLACES[1], 16]["weights"] == 2 and table.found[PLACES[1], 16]["norm"] == 0
    assert "found of 2 each" in str(table) and "exponent" in str(table)
