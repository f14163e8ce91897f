"""What cannot be cut is refused with a sentence, on the rank that it is about, and nothing is cut."""

import dataclasses
import re

import pytest
import torch
import torch.distributed as dist
from shared_tp import GPT2, message, whole_model, worlds
from torch import nn

from parallel_lab import launch
from parallel_lab.runtime import RankFailed
from parallel_lab.tensor_parallel import full_state_dict, load_full_state_dict, tensor_parallel, vocab_cross_entropy


def variant(**options):
    return dataclasses.replace(GPT2, **options)


def refused(fn, message, ranks=2):
    with pytest.raises(RankFailed, match=re.escape(message)):
        launch(fn, ranks=ranks, timeout=20)


def test_what_does_not_divide_and_what_is_no_whole_gpt():
    """The model is whole afterwards: it still computes what it did."""
    wrong = {
        "12 heads do not divide by 5: nothing was cut. Choose a divisor of 12": ({}, 5),
        "3 key-value heads neither divide by 2 ranks nor the ranks by them: nothing was cut": ({"kv_heads": 3}, 2),
        "49 hidden columns do not divide by 2: nothing was cut": ({"hidden": 49}, 2),
    }

    def fn():
        found, groups, tokens = {}, dict(worlds(2, 5)), torch.arange(8).view(1, -1)
        for expected, (options, ranks) in wrong.items():
            if groups[ranks]:
                model = whole_model(variant(**options))
                before = model(tokens)
                found[expected] = message(tensor_parallel, model, group=groups[ranks])
                assert torch.equal(model(tokens), before)
        if groups[2]:
            cut = tensor_parallel(whole_model(GPT2), group=groups[2])
            found["this model was cut before"] = message(tensor_parallel, cut, group=groups[2])
        found["tensor_parallel cuts a GPT, and this is a Linear"] = message(tensor_parallel, nn.Linear(4, 4))
        found["write tensor_parallel(model, sequence=..., group=...)"] = message(tensor_parallel, None, True)
        return found

    results = launch(fn, ranks=5, timeout=20).results
    assert len(results[0]) == 6
    for result in results:
        assert all(expected in found for expected, found in result.items()), result


def test_ranks_that_differ():
    """Other models, other settings, and generators that would draw other masks; rank 1 is told."""

    def models():
        tensor_parallel(whole_model(variant(layers=1 + dist.get_rank())))

    def settings():
        tensor_parallel(whole_model(GPT2), sequence=dist.get_rank() == 1)

    def generators():
        torch.manual_seed(dist.get_rank())
        tensor_parallel(whole_model(variant(dropout=0.1)))

    refused(models, "rank 1 does not have the model of rank 0")
    refused(settings, "value of the setting 'sequence' is True here and False there")
    refused(generators, 'value of the setting "the state of torch\'s random generator" is ')


def test_weights_that_differ_become_rank_0_s():
    """One full initialization stands behind all parts, whatever seed a rank started from."""

    def fn():
        right = whole_model(GPT2).state_dict()
        model = whole_model(GPT2)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + dist.get_rank())
        got = full_state_dict(tensor_parallel(model))
        halves = [torch.empty_like(model.blocks[0].attention.query.weight) for _ in range(2)]
        dist.all_gather(halves, model.blocks[0].attention.query.weight.detach())
        return all(torch.equal(got[name], right[name]) for name in right), torch.equal(*halves)

    assert launch(fn, ranks=2).results == [(True, False)] * 2


def test_sequences_and_positions_of_one_s_own():
    def fn():
        tokens, positions = torch.arange(8).view(1, -1), torch.arange(8).flip(0)
        right = whole_model(GPT2)(tokens, positions)
        loss = nn.functional.cross_entropy(right.flatten(0, 1), tokens.flatten())
        off = []
        for sequence in (False, True):
            model = tensor_parallel(whole_model(GPT2), sequence=sequence)
            mine = vocab_cross_entropy(model(tokens, positions), tokens, vocab=GPT2.vocab)
            off.append((mine - loss).abs().item())
        long = message(model, torch.zeros(1, 9, dtype=torch.int64))
        return max(off), long, message(model, tokens[:, :7], positions[:7])

    for off, long, uneven in launch(fn, ranks=2).results:
        assert off < 1e-13 and "a sequence of 9 tokens, where this model has positions for 8" in long
        assert "2 ranks share 7 tokens with positions of their own: pad them to a multiple of 2" in uneven


def test_a_checkpoint_of_another_model():
    """Refused on one rank, it is loaded on none."""
    wrong = {
        "the checkpoint has blocks.2.attention_norm.weight": {"layers": 3},
        "the checkpoint lacks blocks.1.attention_norm.weight (48,): it is of another model": {"layers": 1},
        "embedding.tokens.weight is (256, 24) in the checkpoint and (256, 48) in this model, whole": {"width": 24},
        "embedding.tokens.weight is (255, 48) in the checkpoint and (256, 48) in this model, whole": {"vocab": 255},
    }

    def fn():
        model = tensor_parallel(whole_model(GPT2))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = {}
        for expected, options in wrong.items():
            found[expected] = message(load_full_state_dict, model, whole_model(variant(**options)).state_dict())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        return found

    def one_rank():
        model = tensor_parallel(whole_model(GPT2))
        load_full_state_dict(model, whole_model(variant(layers=1 + dist.get_rank())).state_dict())

    for result in launch(fn, ranks=2).results:
        assert all(expected in found for expected, found in result.items()), result
    refused(one_rank, "the checkpoint lacks blocks.1.attention_norm.weight (48,)")
