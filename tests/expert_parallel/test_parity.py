"""Experts cut over 1, 2, 3 and 4 ranks end where one process ends: losses, gradients, weights after three steps.

Tolerances, float64: losses and gradients 1e-12, which is another order of sums; weights 1e-9, as Adam divides by small
numbers. The gradients of routers and of experts that no token chose are among them.
"""

import pytest
import torch
import torch.distributed as dist
from shared_ep import (
    LLAMA,
    MOE,
    all_to_expert_0,
    apart,
    batches_of,
    cut,
    part_of_loss,
    steps,
    variant,
    whole_model,
    worlds,
)

from parallel_lab import launch
from parallel_lab.expert_parallel import (
    expert_parameters,
    formulas,
    full_state_dict,
    load_full_state_dict,
    mixtures,
    reduce_gradients,
)
from parallel_lab.model import loss as mean_loss

BATCH = 6  # over 4 ranks 2, 2, 1, 1
CASES = {
    "gpt, two of twelve": ({}, {}),
    "llama, three of twelve": (LLAMA | {"active_experts": 3}, {}),
    "one of twelve": ({"active_experts": 1}, {}),
    "all of twelve": ({"active_experts": 12, "layers": 1}, {}),
    "everything to expert 0": ({"active_experts": 1}, {"change": all_to_expert_0}),
    "balanced by loss and bias": ({}, {"weight": 0.1, "rate": 0.01}),
}


def compared(config, group, change=lambda model: model, **options):
    """How far three steps are from those of one process, and this rank's names."""
    batches = batches_of(config, BATCH, 3)
    whole, mine = change(whole_model(config)), cut(config, group, change)
    right, losses = steps(whole, batches, **options), steps(mine, batches, group, **options)
    gradients, weights, names = apart(mine, whole)
    biases = [(a.bias - b.bias).abs().max().item() for a, b in zip(mixtures(mine), mixtures(whole), strict=True)]
    off = max(*(abs(a - b) for a, b in zip(losses, right, strict=True)), gradients, *biases)
    return off, weights, names


def test_ends_where_one_process_ends():
    """One launch of four ranks holds all cases and worlds; the ranks' names together are those of the whole model."""

    def fn():
        groups = worlds(1, 2, 3, 4)
        return {
            (name, n): compared(variant(**options), group, **further)
            for name, (options, further) in CASES.items()
            for n, group in groups.items()
            if group
        }

    results = launch(fn, ranks=4, timeout=120).results
    assert len(results[0]) == 4 * len(CASES)
    for result in results:
        for case, (off, weights, _) in result.items():
            assert off < 1e-12 and weights < 1e-9, (case, off, weights)
    for name, n in results[0]:
        names = set().union(*(result[name, n][2] for result in results[:n]))
        assert names == {each for each, _ in whole_model(variant(**CASES[name][0])).named_parameters()}


def test_experts_without_tokens_have_gradients_of_zeros():
    """All tokens go to expert 0: three of four ranks receive nothing, and every expert has a gradient."""

    def fn():
        model = cut(variant(active_experts=1), dist.group.WORLD, all_to_expert_0)
        (x, y) = batches_of(MOE, 4, 1)[0]
        part_of_loss(model, x, y, y.numel()).backward()
        counts = [mixture.counts.tolist() for mixture in mixtures(model)]
        return counts, {name: p.grad.abs().max().item() for name, p in expert_parameters(model).items()}

    for rank, (counts, sizes) in enumerate(launch(fn, ranks=4).results):
        assert all(each == [24, *[0] * 11] for each in counts)
        assert len(sizes) == 2 * 3 * 4
        assert all((size > 0) == (rank == 0 and "experts.0." in name) for name, size in sizes.items())


def test_a_rank_without_tokens_takes_part():
    def fn():
        model, (x, y) = cut(MOE, dist.group.WORLD), batches_of(MOE, 3, 1)[0]
        whole = whole_model(MOE)
        part_of_loss(whole, x, y, y.numel()).backward()
        mine = slice(0, 3 if dist.get_rank() == 1 else 0)
        part_of_loss(model, x[mine], y[mine], y.numel()).backward()
        reduce_gradients(model, mean=False)
        return apart(model, whole)[0]

    assert max(launch(fn, ranks=2).results) < 1e-12


def divided_by_replicas(model, replicas, group):
    """The mistake: as if an expert were a parameter of the ranks that hold it."""
    reduce_gradients(model, mean=False, replicas=replicas, group=group)
    own = expert_parameters(model)
    for name, p in model.named_parameters():
        p.grad /= replicas.size() if name in own else group.size()


def test_gradients_of_means_are_divided_by_all_ranks_and_not_by_those_that_hold_an_expert():
    """Four ranks, each expert on two of them; the mistake leaves experts' gradients twice too large and no others."""

    def fn():
        pairs = [dist.new_group(ranks) for ranks in ((0, 1), (2, 3), (0, 2), (1, 3))]
        rank, world = dist.get_rank(), dist.group.WORLD
        group, replicas = pairs[rank // 2], pairs[2 + rank % 2]
        x, y = batches_of(MOE, 8, 1)[0]
        whole, found = whole_model(MOE), []
        mean_loss(whole(x), y).backward()
        right = dict(whole.named_parameters())
        for reduce in (
            lambda m: reduce_gradients(m, replicas=replicas),
            lambda m: divided_by_replicas(m, replicas, world),
        ):
            model = cut(MOE, group)
            mean_loss(model(x.chunk(4)[rank]), y.chunk(4)[rank]).backward()
            reduce(model)
            own = expert_parameters(model)
            ratio = [(p.grad.norm() / right[name].grad.norm()).item() for name, p in own.items()]
            others = max((p.grad - right[n].grad).abs().max() for n, p in model.named_parameters() if n not in own)
            found.append((apart(model, whole)[0], min(ratio), max(ratio), others.item()))
        return found

    for (off, *_), (_, least, most, others) in launch(fn, ranks=4).results:
        assert off < 1e-12
        assert least == pytest.approx(2) and most == pytest.approx(2) and others < 1e-12


def test_a_checkpoint_of_another_number_of_ranks_and_another_placement():
    """The whole state is that of one process, bit by bit, and loads into two, three and four ranks."""

    def fn():
        found, whole, x = [], whole_model(MOE), batches_of(MOE, 2, 1)[0][0]
        right, state = whole(x), whole.state_dict()
        for n, group in worlds(2, 3, 4).items():
            for placement in (None, [[*range(r, 12, n)][::-1] for r in range(n)]):
                if group:
                    model = cut(MOE, group, placement=placement)
                    with torch.no_grad():
                        for p in model.parameters():
                            p.zero_()
                    load_full_state_dict(model, state, group)
                    saved = full_state_dict(model, group)
                    same = saved.keys() == state.keys() and all(torch.equal(saved[k], state[k]) for k in state)
                    found.append((same, (model(x) - right).abs().max().item()))
        return found

    for result in launch(fn, ranks=4).results:
        assert result and all(same and off < 1e-12 for same, off in result)


def test_experts_of_unequal_ranks():
    """A placement by load need not give all ranks as many experts."""

    def fn():
        config = variant(experts=5, layers=1)
        whole, mine = whole_model(config), cut(config, dist.group.WORLD, placement=[[4, 1, 2], [3, 0]])
        batches = batches_of(config, 4, 2)
        losses, right = steps(mine, batches, dist.group.WORLD), steps(whole, batches)
        return max(abs(a - b) for a, b in zip(losses, right, strict=True)), apart(mine, whole)[0]

    assert max(max(result) for result in launch(fn, ranks=2).results) < 1e-12


def test_a_rank_holds_its_experts_and_what_is_not_an_expert():
    def fn():
        return sum(p.numel() for p in cut(MOE, dist.group.WORLD).parameters())

    assert launch(fn, ranks=3).results == [formulas.parameters(MOE, 3)] * 3
    assert formulas.parameters(MOE, 1) == sum(p.numel() for p in whole_model(MOE).parameters())
