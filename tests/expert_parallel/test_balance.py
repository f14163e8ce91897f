"""The balance loss is the same however a batch is cut, the bias follows global counts, and placement evens the load."""

import itertools

import pytest
import torch
import torch.distributed as dist
from shared_ep import MOE, all_to_expert_0, apart, batches_of, cut, part_of_loss, steps, variant, whole_model

from parallel_lab import launch
from parallel_lab.expert_parallel import (
    formulas,
    mixtures,
    placement,
    reduce_gradients,
    share_sequences,
    update_bias,
)

WEIGHT = 0.5


def with_loss(model, sequences):
    for mixture in mixtures(model):
        mixture.auxiliary_weight, mixture.auxiliary_sequences = WEIGHT, sequences
    return model


def auxiliaries(model):
    return torch.stack([mixture.auxiliary for mixture in mixtures(model)])


def test_the_loss_is_the_same_for_microbatches_and_ranks():
    """Value and gradients of a batch of 4 sequences: whole; in microbatches of 3 and 1; and over 4 ranks."""

    def fn():
        group, (x, y) = dist.group.WORLD, batches_of(MOE, 4, 1)[0]
        whole, pieces = (with_loss(whole_model(MOE), 4) for _ in range(2))
        part_of_loss(whole, x, y, y.numel()).backward()
        value, found = auxiliaries(whole), {}
        sums = 0
        for mine in (slice(3), slice(3, 4)):
            part_of_loss(pieces, x[mine], y[mine], y.numel()).backward()
            sums = sums + len(x[mine]) * auxiliaries(pieces)
        found["microbatches"] = apart(pieces, whole)[0], (sums / 4 - value).abs().max().item()
        model = with_loss(cut(MOE, group), 4)
        mine = slice(group.rank(), group.rank() + 1)
        part_of_loss(model, x[mine], y[mine], y.numel()).backward()
        reduce_gradients(model, mean=False)
        sums = auxiliaries(model)
        dist.all_reduce(sums)
        found["ranks"] = apart(model, whole)[0], (sums / 4 - value).abs().max().item()
        return found

    for result in launch(fn, ranks=4).results:
        assert all(max(off) < 1e-12 for off in result.values()), result


def test_the_loss_over_parts_of_sequences():
    """Each of 3 ranks has a third of every sequence; its gradients are added up."""

    def fn():
        group, config = dist.group.WORLD, variant(layers=1)
        x = torch.randn(2, 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        whole, mine = (with_loss(whole_model(config), 2) for _ in range(2))
        share_sequences(mine, group=group)
        (one,), (part,) = mixtures(whole), mixtures(mine)
        one(x).sum().backward()
        part(x.chunk(3, 1)[group.rank()]).sum().backward()
        dist.all_reduce(part.router.weight.grad)
        same = (part.auxiliary - one.auxiliary).abs().item()
        return same, (part.router.weight.grad - one.router.weight.grad).abs().max().item()

    assert max(max(result) for result in launch(fn, ranks=3).results) < 1e-12


def test_a_product_of_means_over_the_batch_would_depend_on_the_cut():
    """The reason for sequences: the loss of Switch over what a rank has is another one on every number of ranks."""
    model, (x, _) = whole_model(MOE), batches_of(MOE, 4, 1)[0]
    scores = []
    mixture = mixtures(model)[0]
    mixture.router.register_forward_hook(lambda *args: scores.append(args[2].softmax(-1)))
    model(x)

    def switch(part):
        chosen = part.flatten(0, 1).topk(2).indices.flatten().bincount(minlength=12) / (2 * part.shape[0] * 6)
        return 12 * (chosen * part.flatten(0, 1).mean(0)).sum()

    over_ranks = [torch.stack([switch(part) for part in scores[0].chunk(n)]).mean().item() for n in (1, 2, 4)]
    assert all(abs(a - b) > 1e-3 for a, b in itertools.combinations(over_ranks, 2))
    by_sequence = torch.stack([switch(part) for part in scores[0].chunk(4)]).mean()
    assert mixture.auxiliary.item() == pytest.approx(by_sequence.item())


def test_the_bias_is_equal_on_all_ranks_and_that_of_one_process():
    """After three steps on unequal shares; with each rank's own counts it is not, and nothing says so."""

    def fn():
        group, config, batches = dist.group.WORLD, variant(layers=1), batches_of(MOE, 7, 3)
        whole, mine, wrong = whole_model(config), cut(config, group), cut(config, group)
        steps(whole, batches, rate=0.25)
        steps(mine, batches, group, rate=0.25)
        alone = dist.new_group([group.rank()], use_local_synchronization=True)
        for x, _ in batches:
            wrong(x.tensor_split(group.size())[group.rank()])
            update_bias(wrong, rate=0.25, group=alone)
        return [mixtures(model)[0].bias.tolist() for model in (whole, mine, wrong)]

    results = launch(fn, ranks=3).results
    assert all(whole == mine == results[0][0] for whole, mine, _ in results)
    assert len({tuple(wrong) for *_, wrong in results}) == 3


def test_the_bias_evens_the_load():
    """From every token on expert 0 to nearly alike, without training; evaluation does not count."""

    def fn():
        mixture = mixtures(all_to_expert_0(whole_model(variant(layers=1))))[0]
        x = torch.randn(1, 240, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        mixture.bias[0], loads = 1, []
        for _ in range(150):
            mixture(x)
            loads.append(mixture.counts.tolist())
            update_bias(mixture, rate=0.01)
        mixture.eval()(x)
        return loads[0], loads[-1], mixture.load.tolist()

    first, last, left = launch(fn, ranks=1)[0]
    assert formulas.imbalance(first) == pytest.approx(6)  # half of all choices, on one of 12 experts
    assert formulas.imbalance(last) < 1.3
    assert left == [0] * 12


def test_a_whole_model_without_experts_has_no_bias_to_update():
    def fn():
        update_bias(torch.nn.Linear(2, 2), rate=0.1)
        with pytest.raises(ValueError, match=r"rate=-0.1: expected a finite number of at least 0"):
            update_bias(whole_model(MOE), rate=-0.1)

    launch(fn, ranks=1)


def test_placement_by_load():
    """The heaviest first, to the rank with least, which has room: within the bound of the greedy rule here."""
    load = [9, 8, 1, 1, 1, 1, 1, 2]
    assert placement(load, 2) == [[0, 2, 3, 5], [1, 4, 6, 7]]
    heaviest = max(sum(load[e] for e in numbers) for numbers in placement(load, 2))
    best = min(
        max(sum(load[e] for e in some), sum(load) - sum(load[e] for e in some))
        for some in itertools.combinations(range(8), 4)
    )
    assert best <= heaviest <= 4 / 3 * best < sum(load[:4])  # experts in a row: 19 of 24
    assert placement(torch.zeros(5), 3) == [[0, 3], [1, 4], [2]]
    assert sorted(e for numbers in placement([3, 0, 0, 0, 0, 0], 4) for e in numbers) == list(range(6))
    with pytest.raises(ValueError, match=r"2 experts with loads from 1\.0 on 3 ranks"):
        placement([1, 1], 3)
    with pytest.raises(ValueError, match=r"loads from -1\.0"):
        placement([1, -1], 2)


def test_a_model_placed_by_its_load_gives_the_same_and_its_busiest_rank_has_less():
    def fn():
        group, (x, _) = dist.group.WORLD, batches_of(MOE, 4, 1)[0]
        whole = whole_model(variant(layers=1))
        right = whole(x)
        loads = mixtures(whole)[0].counts
        found = []
        for places in (None, placement(loads, group.size())):
            model = cut(variant(layers=1), group, placement=places)
            mine = [int(name) for name in mixtures(model)[0].experts]
            found.append(((model(x) - right).abs().max().item(), loads[mine].sum().item()))
        return found

    results = launch(fn, ranks=4).results
    assert max(off for result in results for off, _ in result) < 1e-12
    before, after = (max(result[place][1] for result in results) for place in (0, 1))
    assert after < before
