"""The mixture in one process: who is chosen, with which weights, who gets a gradient, and what the balance loss is."""

from copy import deepcopy

import pytest
import torch

from parallel_lab.model import GPTConfig, MixtureOfExperts, build, flops_per_token, loss, parameter_count
from parallel_lab.model.experts import counted, top
from parallel_lab.model.formulas import activation_bytes

CONFIG = GPTConfig(width=8, heads=2, layers=1, seq=6, hidden=12, experts=4, active_experts=2)


def mixture(**options):
    torch.manual_seed(0)
    made = MixtureOfExperts(GPTConfig(**{**vars(CONFIG), **options})).double()
    torch.nn.init.normal_(made.router.weight)
    return made


def some_input(*shape):
    return torch.randn(*shape, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("active", [1, 2, 4])
def test_each_token_is_the_weighted_sum_over_its_experts(active):
    """Mixtral's weights: a softmax over the chosen logits alone; Switch's score where there is one."""
    made, x = mixture(active_experts=active), some_input(2, 6)
    out = made(x)
    for token, got in zip(x.flatten(0, 1), out.flatten(0, 1), strict=True):
        logits = made.router(token)
        chosen = logits.topk(active).indices
        weights = logits[chosen].softmax(-1) if active > 1 else logits.softmax(-1)[chosen]
        right = sum(weight * made.experts[e](token) for e, weight in zip(chosen.tolist(), weights, strict=True))
        assert (got - right).abs().max() < 1e-14
    assert made.counts.sum() == 12 * active and made.counts.dtype == torch.int64


def test_of_equal_scores_the_lower_number_is_chosen():
    scores = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.1, 0.4], [0.0, 0.2, 0.4, 0.4]])
    assert top(scores, 2).tolist() == [[0, 1], [1, 3], [2, 3]]
    made = mixture()
    torch.nn.init.zeros_(made.router.weight)
    made(some_input(2, 6))
    assert made.counts.tolist() == [12, 12, 0, 0]
    assert counted(torch.tensor([[3, 0], [3, 3]]), 4).tolist() == [1, 0, 0, 3]


@pytest.mark.parametrize("active", [1, 2])
def test_the_router_learns_and_experts_without_tokens_have_gradients_of_zeros(active):
    made = mixture(active_experts=active)
    made.bias[3] = -10
    made(some_input(2, 6)).square().sum().backward()
    assert made.router.weight.grad.abs().max() > 1e-6
    assert all(p.grad is not None and not p.grad.any() for p in made.experts[3].parameters())


def test_the_bias_chooses_and_does_not_weigh():
    made, x = mixture(active_experts=1), some_input(1, 6)
    made.bias[2] = 10
    scores = made.router(x).softmax(-1)
    assert (made(x) - scores[..., 2:3] * made.experts[2](x)).abs().max() < 1e-14
    assert made.counts.tolist() == [0, 0, 6, 0]


def test_the_load_adds_up_in_training_alone_and_is_in_no_checkpoint():
    made, x = mixture(), some_input(1, 6)
    made(x), made(x)
    made.eval()(x)
    assert torch.equal(made.load, 2 * made.counts) and "bias" in made.state_dict() and "load" not in made.state_dict()


def test_the_balance_loss_by_hand():
    """E / (K s) sum of choices times mean scores, a sequence; then the mean over sequences; 1 where all is equal."""
    made, x = mixture(), some_input(3, 6)
    made.bias[1] = 10  # the loss looks at scores, and not at the choice that the bias bent
    made(x)
    values = []
    for scores in made.router(x).softmax(-1):
        choices = scores.topk(2).indices.flatten().bincount(minlength=4)
        values.append(4 / (2 * 6) * (choices * scores.mean(0)).sum())
    assert made.auxiliary.item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-12)
    torch.nn.init.zeros_(made.router.weight)
    made(x)
    assert made.auxiliary.item() == pytest.approx(1)  # equal scores, whoever is chosen


def test_the_gradient_of_the_balance_loss_enters_by_itself():
    """As if weight x auxiliary had been added to the loss; the output is the same."""
    made, x = mixture(), some_input(3, 6)
    added = deepcopy(made)
    made.auxiliary_weight = 0.5
    out = made(x)
    out.sum().backward()
    scores = added.router(x).softmax(-1)
    choices = torch.stack([each.topk(2).indices.flatten().bincount(minlength=4) for each in scores]).double()
    value = (4 / (2 * 6) * choices * scores.mean(1)).sum(-1).mean()
    other = added(x)
    (other.sum() + 0.5 * value).backward()
    assert torch.equal(out, other)
    assert (made.router.weight.grad - added.router.weight.grad).abs().max() < 1e-14


def test_a_gpt_of_experts_is_counted_and_learns():
    for options in ({}, {"gated": True, "norm": "rms", "bias": False}):
        config = GPTConfig(**{**vars(CONFIG), "layers": 2, **options})
        model = build(config)
        assert sum(p.numel() for p in model.parameters()) == parameter_count(config)
        tokens = torch.arange(12).view(2, 6)
        loss(model(tokens), tokens).backward()
        assert all(p.grad is not None for p in model.parameters())
    dense = GPTConfig(**{**vars(CONFIG), "experts": 1, "active_experts": 1})
    more = 6 * (2 * 8 * 12 + 8 * 4)  # one more active expert, and the router
    assert flops_per_token(CONFIG) - flops_per_token(dense) == more


def test_more_active_experts_than_there_are_and_what_is_not_counted():
    with pytest.raises(ValueError, match="3 active experts of 2: a token goes through each once"):
        GPTConfig(experts=2, active_experts=3)
    with pytest.raises(ValueError, match="active_experts is 0: expected at least 1"):
        GPTConfig(experts=2, active_experts=0)
    with pytest.raises(ValueError, match="4 experts: what autograd keeps of them is measured"):
        activation_bytes(CONFIG, 2)
