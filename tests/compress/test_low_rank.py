"""Factors against the singular values, adapters against the merged weight, and the loss of a student."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from parallel_lab.compress.distillation import distillation_loss
from parallel_lab.compress.iterative import fine_tune
from parallel_lab.compress.lora import LoRA, lora, merge
from parallel_lab.compress.low_rank import factor, low_rank, pays, rank_for
from parallel_lab.compress.pruning import Masks
from parallel_lab.model import GPTConfig, build, text_batches

CONFIG = GPTConfig(width=32, seq=16, layers=2)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 5, 17])
def test_squared_error_is_the_sum_of_dropped_squares(rank):
    weight = drawn(17, 40)
    left, right = factor(weight, rank)
    sigma = torch.linalg.svdvals(weight)
    assert left.shape == (17, rank) and right.shape == (rank, 40)
    assert (weight - left @ right).square().sum() == pytest.approx(sigma[rank:].square().sum().item(), abs=1e-12)


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.9, 0.999, 1.0])
def test_the_rank_is_the_least_that_keeps_the_energy(energy):
    sigma = torch.linalg.svdvals(drawn(17, 40))
    rank = rank_for(sigma, energy)
    share = sigma.square().cumsum(0) / sigma.square().sum()
    assert share[rank - 1] >= energy - 1e-12 and (rank == 1 or share[rank - 2] < energy)
    with pytest.raises(ValueError, match="an energy of 0"):
        rank_for(sigma, 0)


def test_only_layers_that_get_smaller_become_two():
    """A layer of rank 2 does, and computes the same; one of full rank stays."""
    model = build((64, 40, 10), dtype=torch.float64)
    model[0].weight.data = drawn(40, 2) @ drawn(2, 64)
    thin = low_rank(model, 0.9999999)
    assert isinstance(thin[0], nn.Sequential) and isinstance(thin[2], nn.Linear)
    assert sum(p.numel() for p in thin[0].parameters()) == 2 * (40 + 64) + 40
    x = drawn(5, 64)
    assert (thin(x) - model(x)).abs().max() < 1e-12 and isinstance(model[0], nn.Linear)
    assert pays(40, 64, 24) and not pays(40, 64, 25)


def test_low_rank_of_a_gpt_with_a_tied_output_layer():
    model = build(CONFIG)
    thin = low_rank(model, 0.5)
    tokens = torch.randint(256, (2, 16))
    assert thin(tokens).shape == model(tokens).shape
    assert thin.head.linear.weight is thin.embedding.tokens.weight
    assert sum(p.numel() for p in thin.parameters()) < sum(p.numel() for p in model.parameters())


def test_lora_starts_at_the_weight_and_trains_only_the_adapters():
    model = build(CONFIG, dtype=torch.float64)
    adapted = lora(model, 4, 8, layers=("query", "value"))
    tokens = torch.randint(256, (2, 16))
    assert torch.equal(adapted(tokens), model(tokens))
    names = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(names) == 2 * 2 * 2 and all(name.endswith((".a", ".b")) for name in names)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 2 * 2 * 4 * (32 + 32)
    losses = fine_tune(adapted, Masks(), text_batches(16, 8, 20), torch.optim.AdamW, lr=1e-2)
    assert losses[-1] < losses[0]
    for name, p in model.named_parameters():
        now = adapted.get_parameter(name.replace("query.", "query.linear.").replace("value.", "value.linear."))
        assert torch.equal(now, p), name


def test_merge_is_exact():
    """To the last bit where all numbers are whole; to 1e-13 after training; with the names and shapes of the model."""
    model = build((64, 40, 10), dtype=torch.float64)
    adapted = lora(model, 4, 8)  # a scale of 2
    for p in adapted.parameters():
        p.data = (torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 3).round().double()
    x = (drawn(9, 64) * 4).round()
    merged = merge(adapted)
    assert torch.equal(merged(x), adapted(x))
    assert not any(isinstance(module, LoRA) for module in merged.modules())
    assert {n: p.shape for n, p in merged.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert all(p.requires_grad for p in merged.parameters())

    adapted = lora(build(CONFIG, dtype=torch.float64), 4, 8)
    fine_tune(adapted, Masks(), text_batches(16, 8, 5), torch.optim.AdamW, lr=1e-2)
    tokens = torch.randint(256, (2, 16))
    assert (merge(adapted)(tokens) - adapted(tokens)).abs().max() < 1e-12


def test_lora_refusals():
    with pytest.raises(ValueError, match="a rank of 0"):
        lora(build(CONFIG), 0, 8)
    with pytest.raises(ValueError, match="no linear is named q_proj: the model has blocks"):
        lora(build(CONFIG), 2, 8, layers=("q_proj",))


def test_distillation_is_its_formula():
    student, teacher, targets = drawn(3, 7, 10).requires_grad_(), drawn(3, 7, 10) * 2, torch.arange(21).view(3, 7) % 10
    found = distillation_loss(student, teacher, targets, temperature=4, weight=0.3)
    theirs, mine = (each.detach().flatten(0, -2) / 4 for each in (teacher, student))
    divergence = (theirs.softmax(-1) * (theirs.log_softmax(-1) - mine.log_softmax(-1))).sum(-1).mean()
    hard = F.cross_entropy(student.detach().flatten(0, -2), targets.flatten())
    assert found.item() == pytest.approx((0.3 * 16 * divergence + 0.7 * hard).item(), rel=1e-12)
    assert distillation_loss(student, student, targets, weight=1.0).item() == pytest.approx(0, abs=1e-12)


def test_at_high_temperature_it_matches_logits():
    """Hinton et al. 2015, section 2.1: the gradient becomes (z - v) / N for logits of mean zero."""
    student, teacher = drawn(1, 10), drawn(1, 10).flip(1)
    student, teacher = ((each - each.mean()).requires_grad_() for each in (student, teacher))
    distillation_loss(student, teacher, torch.tensor([0]), temperature=1e4, weight=1.0).backward()
    assert torch.allclose(student.grad, (student - teacher).detach() / 10, atol=1e-4) and teacher.grad is None
    with pytest.raises(ValueError, match="expected one shape, a temperature over 0"):
        distillation_loss(student, teacher, torch.tensor([0]), temperature=0)
