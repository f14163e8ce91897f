"""The oracle: deterministic, equal to a loop by hand, and a mean over the global batch whatever the cutting."""

import pytest
import torch
import torch.nn.functional as F

from parallel_lab.model import GPTConfig, build, digit_batches, shard_sizes, text_batches, train

CONFIG = GPTConfig(seq=12, width=16, heads=2)
F64 = torch.float64


def same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def batches(steps=4, batch=5):
    return text_batches(CONFIG.seq, batch, steps)


def test_equals_a_loop_by_hand():
    model = build(CONFIG, seed=3)
    reference = train(model, batches(), torch.optim.AdamW, lr=1e-2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for tokens, targets in batches():
        optimizer.zero_grad()
        mean = F.cross_entropy(model(tokens).reshape(-1, 256), targets.reshape(-1))
        mean.backward()
        optimizer.step()
        losses.append(mean.item())
    assert reference.losses == pytest.approx(losses, rel=1e-6)
    same(reference.weights, model.state_dict())
    same(reference.gradients, {name: p.grad for name, p in model.named_parameters()})


def test_twice_the_same_to_the_bit_even_with_dropout():
    model = build(GPTConfig(seq=12, width=16, heads=2, dropout=0.3))
    first, second = (train(model, batches(), torch.optim.SGD, lr=0.1) for _ in range(2))
    assert first.losses == second.losses
    same(first.weights, second.weights, rtol=0, atol=0)
    same(first.gradients, second.gradients, rtol=0, atol=0)
    assert train(model, batches(), torch.optim.SGD, lr=0.1, seed=1).losses != first.losses


def test_the_model_and_the_random_state_are_left_alone():
    model = build(CONFIG)
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    reference = train(model, batches(), torch.optim.SGD, lr=0.1)
    same(weights, model.state_dict(), rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(reference.weights["head.norm.weight"], weights["head.norm.weight"])


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_microbatches_even_or_not_change_nothing(accumulate):
    model = build(CONFIG, dtype=F64)
    whole = train(model, batches(), torch.optim.Adam, lr=1e-2)
    cut = train(model, batches(), torch.optim.Adam, lr=1e-2, accumulate=accumulate)
    assert cut.losses == pytest.approx(whole.losses, rel=1e-12)
    same(cut.gradients, whole.gradients, rtol=1e-9, atol=1e-12)
    # Adam divides by the root of a mean square that can be as small as its epsilon, 1e-8, which enlarges the rounding.
    same(cut.weights, whole.weights, rtol=1e-6, atol=1e-8)


def test_uneven_shares_weighted_by_samples_give_the_global_gradient():
    """What data parallelism has to do: over 3 ranks, 10 samples are 4, 3 and 3, and a plain mean of means is wrong."""
    model = build(CONFIG, dtype=F64)
    oracle = train(model, batches(1, 10), torch.optim.SGD, lr=0.1).gradients
    weighted, plain = ({name: torch.zeros_like(g) for name, g in oracle.items()} for _ in range(2))
    for rank, size in enumerate(shard_sizes(10, 3)):
        ((tokens, targets),) = text_batches(CONFIG.seq, 10, 1, rank, 3)
        mine = train(model, [(tokens, targets)], torch.optim.SGD, lr=0.1).gradients
        for name, gradient in mine.items():
            weighted[name] += gradient * size / 10
            plain[name] += gradient / 3
    same(weighted, oracle, rtol=1e-9, atol=1e-12)
    assert max((plain[name] - oracle[name]).abs().max() for name in oracle) > 1e-5


def test_float64_starts_from_the_weights_of_float32():
    single, double = build(CONFIG, seed=7), build(CONFIG, seed=7, dtype=F64)
    same({n: t.double() for n, t in single.state_dict().items()}, dict(double.state_dict()), rtol=0, atol=0)
    assert not torch.equal(build(CONFIG, seed=8).embedding.tokens.weight, single.embedding.tokens.weight)


def test_digits_in_float64_and_frozen_parameters():
    model = build((64, 16, 10), dtype=F64)
    model[0].bias.requires_grad_(False)
    reference = train(model, digit_batches(32, 30), torch.optim.SGD, lr=0.5)
    assert reference.losses[-1] < reference.losses[0]
    assert set(reference.gradients) == {"0.weight", "2.weight", "2.bias"}
    assert torch.equal(reference.weights["0.bias"], model[0].bias)
    assert reference.weights["0.weight"].dtype == F64


def test_tied_weights_have_one_gradient_and_two_names():
    reference = train(build(CONFIG), batches(1), torch.optim.SGD, lr=0.1)
    assert "head.linear.weight" not in reference.gradients
    assert torch.equal(reference.weights["head.linear.weight"], reference.weights["embedding.tokens.weight"])


def test_another_loss_and_bad_requests():
    model = build((64, 10))
    reference = train(model, digit_batches(8, 1), torch.optim.SGD, loss=lambda x, y: 2 * F.cross_entropy(x, y), lr=0.1)
    assert reference.losses == pytest.approx([2 * train(model, digit_batches(8, 1), torch.optim.SGD, lr=0.1).losses[0]])
    with pytest.raises(ValueError, match="no batches"):
        train(model, [], torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="9 microbatches"):
        train(model, digit_batches(8, 1), torch.optim.SGD, lr=0.1, accumulate=9)
