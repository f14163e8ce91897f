"""What cannot be cut is refused with a sentence on all ranks, or on the rank that differs; and nothing is cut."""

import re

import pytest
import torch
import torch.distributed as dist
from shared_ep import MOE, cut, message, variant, whole_model, worlds
from torch import nn

from parallel_lab import launch
from parallel_lab.expert_parallel import expert_parallel, full_state_dict, load_full_state_dict
from parallel_lab.model import GPTConfig, build
from parallel_lab.runtime import RankFailed


def refused(fn, said, ranks=2):
    with pytest.raises(RankFailed, match=re.escape(said)):
        launch(fn, ranks=ranks, timeout=20)


def test_what_cannot_be_cut():
    """The model is whole afterwards: it still computes what it did."""
    whole = "expected 2 lists, one a rank and none empty, in which each of the 12 experts stands once"
    wrong = {
        "12 experts do not divide by 5 ranks: nothing was cut. Choose a divisor of 12, or say with placement": ({}, 5),
        "capacity_factor=0: expected a number above 0, or None to drop nothing": ({"capacity_factor": 0}, 2),
        "capacity_factor=nan": ({"capacity_factor": float("nan")}, 2),
        "drop='random': expected position or score": ({"drop": "random"}, 2),
        f"placement=[[0, 1], [2]]: {whole}": ({"placement": [[0, 1], [2]]}, 2),
        f"placement=[[], {list(range(12))}]: {whole}": ({"placement": [[], list(range(12))]}, 2),
    }

    def fn():
        found, groups, tokens = {}, worlds(2, 5), torch.arange(6).view(1, -1)
        for expected, (options, ranks) in wrong.items():
            if groups[ranks]:
                model = whole_model(MOE)
                before = model(tokens)
                found[expected] = message(alone, model, groups[ranks], options)
                assert torch.equal(model(tokens), before)
        return found

    def alone(model, group, options):
        """All ranks raise, so that none waits for another."""
        expert_parallel(model, group=group, **options)

    results = launch(fn, ranks=5, timeout=20).results
    assert len(results[0]) == len(wrong)
    for result in results:
        assert all(expected in found for expected, found in result.items()), result


def test_models_without_experts_or_cut_before():
    def fn():
        again = cut(MOE, dist.group.WORLD)
        return [
            message(expert_parallel, build(GPTConfig())),
            message(expert_parallel, nn.Linear(2, 2)),
            message(expert_parallel, again),
            message(expert_parallel, again, 1.5),
        ]

    for none, linear, before, place in launch(fn, ranks=2).results:
        assert "this GPT has no experts: nothing was cut" in none and "this Linear has no experts" in linear
        assert "the experts of this model were cut before" in before
        assert "write expert_parallel(model, capacity_factor=..., drop=..., placement=..., group=...)" in place


def test_ranks_that_differ():
    def models():
        expert_parallel(whole_model(variant(experts=4 + 4 * dist.get_rank())))

    def settings():
        expert_parallel(whole_model(MOE), capacity_factor=1.0 + dist.get_rank())

    def one_rank():
        expert_parallel(whole_model(MOE), capacity_factor=1.0 - dist.get_rank())

    refused(models, "rank 1 does not have the model of rank 0")
    refused(settings, "value of the setting 'capacity_factor' is 2.0 here and 1.0 there")
    refused(one_rank, "capacity_factor=0.0: expected a number above 0")


def test_weights_that_differ_become_rank_0_s():
    def fn():
        right, model = whole_model(MOE).state_dict(), whole_model(MOE)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + dist.get_rank())
        got = full_state_dict(expert_parallel(model))
        return all(torch.equal(got[name], right[name]) for name in right)

    assert all(launch(fn, ranks=2).results)


def test_a_checkpoint_of_another_model():
    """Refused on one rank, it is loaded on none."""
    wrong = {
        "the checkpoint lacks blocks.1.attention_norm.weight (16,)": {"layers": 1},
        "embedding.tokens.weight is (256, 8) in the checkpoint and (256, 16) in this model": {"width": 8},
        "blocks.0.feed_forward.bias is (13,) in the checkpoint and (12,) in this model": {"experts": 13},
    }

    def fn():
        model = cut(MOE, dist.group.WORLD)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = {
            e: message(load_full_state_dict, model, whole_model(variant(**o)).state_dict()) for e, o in wrong.items()
        }
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        return found

    for result in launch(fn, ranks=2).results:
        assert all(expected in found for expected, found in result.items()), result
