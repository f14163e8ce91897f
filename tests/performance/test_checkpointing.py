"""What is kept is measured and equals the closed form, what is computed again is counted, gradients do not change."""

import dataclasses

import pytest
import torch
from torch.utils.checkpoint import checkpoint as of_torch

from parallel_lab.model import GPT, GPTConfig, build
from parallel_lab.model.gpt import loss
from parallel_lab.performance import checkpointing
from parallel_lab.performance.checkpointing import again, checkpoint, flops_again, kept_bytes, plain_attention
from parallel_lab.trace.memory import SavedTensors

PIECES = ("none", "block", "feed_forward", "attention", "core")
GPT2 = GPTConfig(seq=12, width=24, heads=4, layers=3, vocab=50)
LLAMA = dataclasses.replace(GPT2, kv_heads=2, positions="rotary", gated=True, norm="rms", bias=False)
CONFIGS = [GPT2, LLAMA, dataclasses.replace(GPT2, seq=7, mlp_ratio=3)]


def drawn(config, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(config.vocab, (batch, config.seq), generator=generator) for _ in range(2)]


def gradients(model, tokens, targets):
    loss(model(tokens), targets).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("config", CONFIGS, ids=["GPT-2", "Llama", "odd"])
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("every", [1, 2])
def test_bytes_kept_are_the_formula_and_gradients_those_without(config, piece, every):
    tokens, targets = drawn(config)
    right = gradients(build(config, dtype=torch.float64), tokens, targets)
    model = checkpoint(build(config, dtype=torch.float64), piece, every)
    with SavedTensors(model) as saved:
        value = loss(model(tokens), targets)
        assert saved.bytes == kept_bytes(config, len(tokens), piece, every, dtype_bytes=8)
    value.backward()
    for name, p in model.named_parameters():
        assert torch.equal(p.grad, right[name]), name


@pytest.mark.parametrize("piece", PIECES)
def test_flops_again_are_counted(piece):
    tokens, targets = drawn(GPT2)

    def count(piece):
        model = build(GPT2)
        for block in model.blocks:
            block.attention.attend = plain_attention
        checkpoint(model, piece)
        with checkpointing.FlopCounter() as counter:
            gradients(model, tokens, targets)
        return counter.get_total_flops()

    assert count(piece) - count("none") == flops_again(GPT2, len(tokens), piece)


def test_of_a_plain_core_the_scores_are_saved():
    """Selective recomputation as Korthikanti et al. 2022 meant it: where attention keeps its scores."""
    tokens, targets = drawn(GPT2)

    def kept(piece):
        model = build(GPT2)
        for block in model.blocks:
            block.attention.attend = plain_attention
        checkpoint(model, piece)
        with SavedTensors(model) as saved:
            value = loss(model(tokens), targets)
            held = saved.bytes
        value.backward()
        return held

    assert kept("none") - kept("core") >= checkpointing.scores_bytes(GPT2, len(tokens))
    assert kept("core") == kept_bytes(GPT2, len(tokens), "core")


def test_dropout_falls_the_same_way_twice():
    config = dataclasses.replace(GPT2, dropout=0.3)
    tokens, targets = drawn(config)
    found = []
    for piece in ("none", "block", "feed_forward", "attention"):
        model = checkpoint(build(config), piece)
        torch.manual_seed(3)
        found.append(gradients(model, tokens, targets))
    for each in found[1:]:
        assert all(torch.equal(each[name], right) for name, right in found[0].items())


def test_parity_with_torch():
    layer, x = torch.nn.Linear(5, 5).double(), torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    fn = lambda x: layer(x).tanh().square()  # noqa: E731
    ours = torch.autograd.grad(again(fn, x, parameters=tuple(layer.parameters())).sum(), [x, *layer.parameters()])
    right = torch.autograd.grad(of_torch(fn, x, use_reentrant=False).sum(), [x, *layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))


def test_without_the_random_state_gradients_would_differ(monkeypatch):
    """The classic mistake: the second forward drops other values."""
    config = dataclasses.replace(GPT2, dropout=0.3)
    tokens, targets = drawn(config)
    torch.manual_seed(3)
    right = gradients(build(config), tokens, targets)
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    model = checkpoint(build(config), "block")
    torch.manual_seed(3)
    wrong = gradients(model, tokens, targets)
    assert any(not torch.allclose(wrong[name], each) for name, each in right.items())


def test_no_such_piece():
    with pytest.raises(ValueError, match="piece='blocks', every=1: expected none, block"):
        checkpoint(GPT(GPT2), "blocks")
