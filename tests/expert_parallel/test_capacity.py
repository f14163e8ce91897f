"""Capacity: which choices keep a row, what is dropped, and that each source drops for itself."""

import pytest
import torch
import torch.distributed as dist
from shared_ep import MOE, apart, batches_of, cut, part_of_loss, variant, whole_model, worlds

from parallel_lab import launch
from parallel_lab.expert_parallel import (
    capacity,
    expert_parallel,
    expert_parameters,
    formulas,
    mixtures,
    reduce_gradients,
    route,
)

CHOSEN = torch.tensor([[2, 0], [2, 1], [0, 2], [2, 0]])
WEIGHTS = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5], [0.6, 0.4]])


def test_rows_stand_expert_after_expert_and_in_the_order_of_the_choices():
    way = route(CHOSEN, WEIGHTS, 4)
    assert way.counts.tolist() == [3, 1, 4, 0]
    assert way.source.tolist() == [1, 4, 7, 3, 0, 2, 5, 6]


def test_capacity_drops_by_position_or_by_score():
    """Expert 2 is chosen with weights .6, .9, .5 and .6: by position two stay, by score .9 and the first .6."""
    by_position, by_score = (route(CHOSEN, WEIGHTS, 4, 2, drop) for drop in ("position", "score"))
    assert by_position.counts.tolist() == by_score.counts.tolist() == [2, 2, 2, 2]
    assert by_position.source.tolist() == [1, 4, 3, 8, 0, 2, 8, 8]
    assert by_score.source.tolist() == [4, 1, 3, 8, 2, 0, 8, 8]


def test_capacity_is_rounded_up_and_counts_what_is_dropped():
    assert [capacity(8, 4, 2, factor) for factor in (0.5, 1, 1.01, 2)] == [2, 4, 5, 8]
    load = [[5, 2, 1, 0], [2, 2, 2, 2]]
    assert formulas.dropped(load, 1, 1) == 3 and formulas.dropped(load, 1, 2.5) == 0
    assert formulas.imbalance([5, 2, 1, 0]) == 2.5


def parts_in_one_process(config, batch, n, **options):
    """What n ranks should come to: their shares of a batch go through one rank's model, one after another."""
    alone = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    model = expert_parallel(whole_model(config), group=alone, **options)
    for x, y in zip(*(each.chunk(n) for each in batch), strict=True):
        part_of_loss(model, x, y, batch[1].numel()).backward()
    return model


@pytest.mark.parametrize("drop", ["position", "score"])
def test_each_source_drops_for_itself(drop):
    """Gradients at 2 and 4 ranks are those of their shares one after another; another cut gives others."""

    def fn():
        found, batch = {}, batches_of(MOE, 4, 1)[0]
        for n, group in worlds(2, 4).items():
            if group:
                options = {"capacity_factor": 0.75, "drop": drop}
                model = cut(MOE, group, **options)
                mine = slice(dist.get_rank() * 4 // n, (dist.get_rank() + 1) * 4 // n)
                part_of_loss(model, batch[0][mine], batch[1][mine], batch[1].numel()).backward()
                reduce_gradients(model, mean=False, group=group)
                one = parts_in_one_process(MOE, batch, n, **options)
                other = parts_in_one_process(MOE, batch, 1, **options)
                found[n] = apart(model, one)[0], apart(model, other)[0]
        return found

    for result in launch(fn, ranks=4).results:
        for right, wrong in result.values():
            assert right < 1e-12 and wrong > 1e-6


def test_a_dropped_choice_adds_nothing_and_weights_stay():
    """One row an expert: what comes out is that of the kept choices, with the weights that they had."""

    def fn():
        config = variant(layers=1)
        x = torch.randn(1, 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        whole = mixtures(whole_model(config))[0]
        seen = []
        whole.mix = lambda tokens, chosen, weights: seen.append((chosen, weights)) or tokens
        whole(x)
        chosen, weights = seen[0]
        right = torch.zeros(6, 16, dtype=torch.float64)
        taken = set()
        for token in range(6):
            for j in range(2):
                if (expert := chosen[token, j].item()) not in taken:
                    taken.add(expert)
                    right[token] += weights[token, j] * whole.experts[expert](x[0, token])
        mixture = mixtures(cut(config, dist.group.WORLD, capacity_factor=0.5))[0]
        return (mixture(x)[0] - right).abs().max().item(), len(taken)

    (off, kept), *_ = launch(fn, ranks=1).results
    assert off < 1e-13 and kept < 12


def test_ranks_with_unequal_batches_agree_on_the_capacity_and_nobody_hangs():
    """The rank with most tokens sets it; a rank without tokens takes part."""

    def fn():
        model, (x, y) = cut(MOE, dist.group.WORLD, capacity_factor=12.0), batches_of(MOE, 6, 1)[0]
        whole = whole_model(MOE)
        part_of_loss(whole, x, y, y.numel()).backward()
        mine = slice(*[(0, 1), (1, 6), (6, 6)][dist.get_rank()])
        part_of_loss(model, x[mine], y[mine], y.numel()).backward()
        reduce_gradients(model, mean=False)
        return apart(model, whole)[0], len(expert_parameters(model))

    assert all(off < 1e-12 and own == 2 * 4 * 4 for off, own in launch(fn, ranks=3).results)
