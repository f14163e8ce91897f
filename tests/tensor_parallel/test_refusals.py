"""What cannot be cut is refused with a sentence, on the rank that it is about, and nothing is cut."""

import dataclasses
import re

import pytest
import torch
import torch.distributed as dist
from shared_tp import GPT2, whole_model
from torch import nn

from parallel_lab import launch
from parallel_lab.runtime import RankFailed
from parallel_lab.tensor_parallel import full_state_dict, load_full_state_dict, tensor_parallel, vocab_cross_entropy


def variant(**options):
    return dataclasses.replace(GPT2, **options)


def refused(fn, message, ranks=2):
    with pytest.raises(RankFailed, match=re.escape(message)):
        launch(fn, ranks=ranks, timeout=20)


@pytest.mark.parametrize(
    ("options", "ranks", "message"),
    [
        ({"heads": 12}, 5, "12 heads do not divide by 5: nothing was cut. Choose a divisor of 12"),
        ({"kv_heads": 3}, 2, "3 key-value heads neither divide by 2 ranks nor the ranks by them: nothing was cut"),
        ({"hidden": 49}, 2, "49 hidden columns do not divide by 2: nothing was cut"),
    ],
)
def test_what_does_not_divide(options, ranks, message):
    """The model is whole afterwards: it still computes what it did."""

    def fn():
        model, tokens = whole_model(variant(**options)), torch.arange(8).view(1, -1)
        before = model(tokens)
        try:
            tensor_parallel(model)
        except ValueError:
            assert torch.equal(model(tokens), before)
            raise

    refused(fn, message, ranks)


def test_what_is_no_whole_gpt():
    refused(lambda: tensor_parallel(nn.Linear(4, 4)), "tensor_parallel cuts a GPT, and this is a Linear")
    refused(lambda: tensor_parallel(tensor_parallel(whole_model(GPT2))), "this model was cut before")
    refused(lambda: tensor_parallel(whole_model(GPT2), True), "write tensor_parallel(model, sequence=..., group=...)")


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


def test_sequences():
    def fn(tokens, positions=None, **options):
        return lambda: tensor_parallel(whole_model(GPT2), **options)(tokens, positions) and None

    refused(fn(torch.zeros(1, 9, dtype=torch.int64), sequence=True), "a sequence of 9 tokens")
    seven = torch.zeros(1, 7, dtype=torch.int64), torch.arange(7)
    refused(fn(*seven, sequence=True), "2 ranks share 7 tokens with positions of their own: pad them")


@pytest.mark.parametrize("sequence", [False, True])
def test_positions_of_one_s_own(sequence):
    def fn():
        tokens, positions = torch.arange(8).view(1, -1), torch.arange(8).flip(0)
        right = whole_model(GPT2)(tokens, positions)
        logits = tensor_parallel(whole_model(GPT2), sequence=sequence)(tokens, positions)
        loss = nn.functional.cross_entropy(right.flatten(0, 1), tokens.flatten())
        return (vocab_cross_entropy(logits, tokens, vocab=GPT2.vocab) - loss).abs().item()

    assert max(launch(fn, ranks=2).results) < 1e-13


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"layers": 3}, "the checkpoint has blocks.2.attention_norm.weight"),
        ({"layers": 1}, "the checkpoint lacks blocks.1.attention_norm.weight (48,): it is of another model"),
        ({"width": 24}, "embedding.tokens.weight is (256, 24) in the checkpoint and (256, 48) in this model, whole"),
        ({"vocab": 255}, "embedding.tokens.weight is (255, 48) in the checkpoint and (256, 48) in this model, whole"),
    ],
)
def test_a_checkpoint_of_another_model(other, message):
    """Refused on one rank, it is loaded on none."""

    def fn():
        model = tensor_parallel(whole_model(GPT2))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = whole_model(variant(**other) if dist.get_rank() else GPT2).state_dict()
        try:
            load_full_state_dict(model, state)
        except ValueError:
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
            raise

    refused(fn, message)
