"""Cuts of real and random lengths against the lower bound, the best cut, and the guarantees of the papers."""

import sys
from dataclasses import replace
from itertools import chain, product

import pytest
import torch

from parallel_lab.model import reference
from parallel_lab.model.budget import Shape
from parallel_lab.model.config import GPTConfig
from parallel_lab.systems.balance import dealt, karmarkar_karp, lower_bound, lpt, measure, sequences

pytestmark = pytest.mark.usefixtures("by_value")
RULES = sequences.RULES


def best(costs, ranks):
    """The smallest largest load of all cuts."""
    found = []
    for one in product(range(ranks), repeat=len(costs)):
        found.append(max(sum(c for c, r in zip(costs, one, strict=True) if r == rank) for rank in range(ranks)))
    return min(found)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_cuts_are_between_the_bound_and_the_guarantee(ranks):
    for seed in range(6):
        costs = sequences.draw(8, seed=seed)
        least, bound = best(costs, ranks), lower_bound(costs, ranks)
        assert bound <= least * (1 + 1e-12)
        for name, rule in RULES.items():
            groups = rule(costs, ranks)
            assert sorted(chain(*groups)) == list(range(8)) and len(groups) == ranks, name
            assert max(sequences.loads(groups, costs)) >= least
        assert max(sequences.loads(lpt(costs, ranks), costs)) <= least * (4 / 3 - 1 / (3 * ranks)) + 1e-9


def test_the_third_bound_sees_that_two_must_share():
    assert lower_bound([5, 5, 5, 1], 2) == 10 and lower_bound([4], 3) == 4 and lower_bound([3, 3, 3, 3, 3], 2) == 9


def test_grahams_worst_case_and_who_does_better():
    """3, 3, 2, 2, 2 on two ranks: LPT makes 7, differencing and the best make 6."""
    costs = [3, 3, 2, 2, 2]
    assert max(sequences.loads(lpt(costs, 2), costs)) == 7 and best(costs, 2) == lower_bound(costs, 2) == 6
    other = [8, 7, 6, 5, 4]
    assert sequences.loads(karmarkar_karp(other, 2), other) == [16, 14] and best(other, 2) == 15
    assert karmarkar_karp([], 2) == [[], []]


def test_real_lengths_are_within_3_percent_of_the_bound():
    """The figure of `benchmarks/balance.py`: 256 paragraphs on 8 ranks, by tokens and by work; in order is far away."""
    for seed in range(5):
        drawn = sequences.draw(256, seed=seed)
        for costs in (drawn, [sequences.work(length, 64) for length in drawn]):
            assert sequences.excess(lpt(costs, 8), costs) < 0.03
            assert sequences.excess(karmarkar_karp(costs, 8), costs) < 0.03
            assert sequences.excess(RULES["in order"](costs, 8), costs) > 0.05


def test_work_is_what_the_model_multiplies():
    shape = Shape(vocab=1, seq=8, layers=3, heads=4, width=96, hidden=256, tied=True)
    table = 6 * shape.vocab * shape.width  # what the output layer costs a token
    token = 6 * 12 * 96**2 * 3
    for length in (1, 50, 1152):
        flops = length * (replace(shape, seq=length).flops_per_token(length, causal=True) - table)
        assert sequences.work(length, 96) == pytest.approx(flops / token)
    assert sequences.work(12 * 96 - 1, 96) == 2 * (12 * 96 - 1), "attention is as much as all the rest"


def test_equal_tokens_are_unequal_work():
    lengths = [4096] + [256] * 48  # 16,384 tokens on 4 ranks
    tokens = lpt(lengths, 4)
    work = [sequences.work(length, 64) for length in lengths]
    assert len(set(sequences.loads(tokens, lengths))) == 1
    by_tokens, by_work = sequences.loads(tokens, work), sequences.loads(lpt(work, 4), work)
    assert max(by_tokens) / min(by_tokens) > 4 and max(by_work) <= max(by_tokens)


def test_a_bound_for_memory_beside_the_work():
    lengths = sequences.draw(64, longest=1024, seed=1)
    work, most = [sequences.work(length, 64) for length in lengths], 1.01 * sum(lengths) / 4
    groups = lpt(work, 4, sizes=lengths, most=most)
    assert max(sequences.loads(groups, lengths)) <= most < max(sequences.loads(lpt(work, 4), lengths))
    with pytest.raises(ValueError, match="fits on no rank"):
        lpt(work, 4, sizes=lengths, most=max(lengths) - 1)


def test_ranks_of_unlike_speed():
    costs = sequences.draw(200, seed=2)
    loads = sequences.loads(lpt(costs, 4, speeds=[1, 1, 1, 0.5]), costs)
    ends = [loads[0], loads[1], loads[2], loads[3] / 0.5]
    assert max(ends) / (sum(costs) / 3.5) < 1.01


def test_snake_deals_equal_numbers():
    assert sequences.snake([9, 8, 7, 6, 5, 4, 3], 3) == [[0, 5, 6], [1, 4], [2, 3]]


def test_steps_are_alike_inside():
    costs = sequences.draw(512, seed=3)
    steps = sequences.over_steps(costs, 4, 8)
    assert sorted(item for step in steps for group in step for item in group) == list(range(512))
    assert all(sequences.excess(step, costs) < 0.03 for step in steps)


def test_sorted_microbatches_pad_less():
    lengths = sequences.draw(128, longest=1024, seed=4)
    batches = sequences.microbatches(range(128), lengths, 4096)
    assert sorted(chain(*batches)) == list(range(128))
    assert all(len(one) == 1 or len(one) * max(lengths[i] for i in one) <= 4096 for one in batches)
    as_they_come = [list(range(first, first + 8)) for first in range(0, 128, 8)]
    assert 2 * sequences.padding(batches, lengths) < sequences.padding(as_they_come, lengths)


def test_lengths_are_those_of_pythons_help():
    for kind, count in (("paragraph", 2071), ("topic", 79)):
        shipped = sequences.lengths(kind)
        assert len(shipped) == count and list(shipped) == sorted(shipped)
        here = sequences.lengths_here(kind)
        if sys.version_info[:3] == (3, 11, 7):
            assert here == shipped
        assert 0.5 < len(here) / count < 2
    with pytest.raises(ValueError, match="no lengths"):
        sequences.lengths("page")
    assert max(sequences.draw(50, longest=64)) == 64


def test_uneven_sequences_on_real_ranks_have_the_gradient_of_all_tokens():
    """A GPT, a microbatch a sequence, costs as units; a slow rank gets less by its speed."""
    config = GPTConfig(vocab=17, seq=40, layers=1, heads=2, width=8)
    net = reference.build(config, seed=1, dtype=torch.float64)
    lengths, dice = sequences.draw(12, longest=40, seed=5), torch.Generator().manual_seed(0)
    batch = []
    for length in lengths:
        tokens = torch.randint(17, (1, length + 1), generator=dice)
        batch.append((tokens[:, :-1], tokens[:, 1:]))
    units = [max(1, round(sequences.work(length, 8) / 20)) for length in lengths]
    groups = lpt(units, 3, speeds=[1, 1, 0.5])
    measured = measure(dealt(groups), net, batch, (0.0005, 0.0005, 0.001), units=units)
    assert [each.units for each in measured.done] == sequences.loads(groups, units)
    loss = sum(torch.nn.functional.cross_entropy(net(x)[0], y[0], reduction="sum") for x, y in batch) / sum(lengths)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in net.parameters()])
    for gradient in measured.gradients:
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)
