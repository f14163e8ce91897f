"""SparseGPT against its formulas and against magnitude; Wanda against its score; a model pruned layer after layer."""

import copy

import pytest
import torch

from parallel_lab.compress.gptq import inverse_factor
from parallel_lab.compress.iterative import fine_tune
from parallel_lab.compress.pruning import Masks, largest, magnitude, n_m, prunable
from parallel_lab.compress.second_order import one_shot, sparse_gpt, wanda
from parallel_lab.model import GPTConfig, build, loss, text, text_batches

ROWS, COLUMNS, SAMPLES = 24, 32, 400


def correlated(seed=0):
    """A weight, and inputs whose columns are sums of a few common causes, each of its own size."""
    g = torch.Generator().manual_seed(seed)
    causes, mix = (torch.randn(shape, generator=g).double() for shape in ((SAMPLES, 6), (6, COLUMNS)))
    own = 0.3 * torch.randn(SAMPLES, COLUMNS, generator=g).double()
    size = torch.rand(COLUMNS, generator=g).double() * 3 + 0.1
    return torch.randn(ROWS, COLUMNS, generator=g).double(), (causes @ mix + own) * size


def gram(x):
    return x.T @ x


def off(weight, changed, x):
    return ((weight - changed) @ x.T).square().sum().item()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", [{"sparsity": 0.5}, {"sparsity": 0.75}, {"pattern": (2, 4)}], ids=str)
def test_sparse_gpt_beats_wanda_and_magnitude_at_equal_sparsity(how, seed):
    weight, x = correlated(seed)
    h = gram(x)
    kept = n_m(weight) if "pattern" in how else largest(weight.abs(), how["sparsity"])
    by_magnitude = weight * kept
    by_wanda, wandas = wanda(weight, h, **how)
    by_sparse_gpt, mask = sparse_gpt(weight, h, **how, block=16)
    assert mask.sum() == kept.sum() == wandas.sum()
    assert (by_sparse_gpt[~mask] == 0).all() and (by_sparse_gpt != 0).sum() == mask.sum()
    assert off(weight, by_sparse_gpt, x) < 0.8 * off(weight, by_wanda, x)
    assert off(weight, by_wanda, x) < off(weight, by_magnitude, x)


def test_one_weight_removed_as_the_optimal_brain_surgeon_does():
    """The first column goes in one row: w_q^2 / [H^-1]_qq is lost, and least squares finds nothing better."""
    weight, x = correlated()
    weight[0, 0] = 1e-3  # surely the least
    h = gram(x)
    changed, mask = sparse_gpt(weight, h, 1 / weight.numel(), damping=0.0)
    assert (~mask).nonzero().tolist() == [[0, 0]]
    inverse = torch.linalg.inv(h)
    right = weight.clone()
    right[0] -= weight[0, 0] / inverse[0, 0] * inverse[0]
    assert torch.allclose(changed[:, 1:], right[:, 1:], rtol=1e-9) and changed[0, 0] == 0
    assert off(weight, changed, x) == pytest.approx((weight[0, 0] ** 2 / inverse[0, 0]).item(), rel=1e-6)
    best = torch.linalg.lstsq(x[:, 1:], x @ weight[0]).solution
    assert torch.allclose(changed[0, 1:], best, rtol=1e-6)


def test_columns_at_the_left_that_go_are_made_up_for_by_least_squares():
    """The first 8 of 32 columns of each row are the least by far: what is left is the best for these masks."""
    weight, x = correlated()
    weight[:, :8] *= 1e-4
    changed, mask = sparse_gpt(weight, gram(x), 0.25, damping=0.0)
    assert not mask[:, :8].any() and mask[:, 8:].all()
    best = torch.linalg.lstsq(x[:, 8:], x @ weight.T).solution.T
    assert torch.allclose(changed[:, 8:], best, rtol=1e-6, atol=1e-9)


def test_blocks_are_lazy_sums_of_the_same():
    """With 2:4, where groups choose for themselves, blocks of any size give the same."""
    weight, x = correlated()
    whole, mask = sparse_gpt(weight, gram(x), pattern=(2, 4), block=32)
    for block in (4, 8, 12, 20):
        changed, same = sparse_gpt(weight, gram(x), pattern=(2, 4), block=block)
        assert torch.equal(mask, same) and torch.allclose(whole, changed, rtol=1e-9)


def test_the_root_holds_the_inverses_of_all_columns_to_the_right():
    _, x = correlated()
    h = gram(x)
    root = inverse_factor(h, 0.0)
    assert torch.allclose(root.T @ root, torch.linalg.inv(h), rtol=1e-6)
    for q in (0, 5, 31):
        inverse = torch.linalg.inv(h[q:, q:])
        assert torch.allclose(root[q, q:] / root[q, q], inverse[0] / inverse[0, 0], rtol=1e-6)
        assert torch.allclose(root[q, q] ** 2, inverse[0, 0], rtol=1e-6)


def test_wanda_is_its_score_row_by_row():
    weight, x = correlated()
    before = weight.clone()
    changed, mask = wanda(weight, gram(x), 0.5)
    scores = weight.abs() * x.norm(dim=0)
    for row, kept in zip(scores, mask, strict=True):
        assert set(kept.nonzero().flatten().tolist()) == set(row.argsort()[COLUMNS // 2 :].tolist())
    assert torch.equal(changed, weight * mask) and torch.equal(weight, before)
    _, pairs = wanda(weight, gram(x), pattern=(2, 4))
    assert torch.equal(pairs, n_m(scores))


def test_inputs_that_never_came_and_a_layer_that_saw_nothing():
    weight, x = correlated()
    x[:, 3] = 0
    for h in (gram(x), torch.zeros(COLUMNS, COLUMNS).double()):
        changed, mask = sparse_gpt(weight, h, 0.5)
        assert changed.isfinite().all() and mask.sum() == mask.numel() // 2


def test_a_model_layer_after_layer():
    """SparseGPT and Wanda prune each linear once; its inputs come from pruned layers; training text calibrates."""
    model = build(GPTConfig(width=32, seq=16, heads=2, layers=2))
    fine_tune(model, Masks(), text_batches(16, 16, 120), torch.optim.AdamW, lr=1e-2)
    calibration = list(text_batches(16, 16, 2, seed=1))
    held_out = list(text_batches(16, 64, 2, seed=2, data=text("validation")))

    def quality(net):
        with torch.no_grad():
            return sum(loss(net(x), y).item() for x, y in held_out)

    losses = {}
    for method in (sparse_gpt, wanda):
        pruned = copy.deepcopy(model)
        masks = one_shot(pruned, calibration, method, sparsity=0.75)
        assert masks.keys() == prunable(model).keys() and masks.sparsity == pytest.approx(0.75, abs=0.01)
        assert all((weight[~masks[name]] == 0).all() for name, weight in prunable(pruned).items())
        losses[method] = quality(pruned)
    plain = copy.deepcopy(model)
    magnitude(plain, 0.75).apply(plain)
    assert quality(model) < losses[sparse_gpt] < quality(plain)

    first, second = (model.blocks[0].feed_forward, pruned.blocks[0].feed_forward)
    assert not torch.equal(first.up.weight, second.up.weight)
    again = copy.deepcopy(pruned)  # Wanda's last layer: the inputs of the pruned model are the ones that counted
    seen = []
    again.blocks[1].feed_forward.down.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        for x, _ in calibration:
            again(x)
    right, _ = wanda(model.blocks[1].feed_forward.down.weight, gram(torch.cat(seen).flatten(0, 1).double()), 0.75)
    assert torch.equal(right, pruned.blocks[1].feed_forward.down.weight)


def test_refusals():
    weight, x = correlated()
    with pytest.raises(ValueError, match=r"a moment of \(400, 400\) for a weight of \(24, 32\)"):
        wanda(weight, x @ x.T)
    with pytest.raises(ValueError, match="a sparsity of 1: expected the share"):
        sparse_gpt(weight, gram(x), 1)
    with pytest.raises(ValueError, match="groups of 4 do not divide 32 columns in blocks of 6"):
        sparse_gpt(weight, gram(x), pattern=(2, 4), block=6)
