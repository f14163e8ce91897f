"""Masks against PyTorch's own, layer by layer and globally; scores; N:M; masks that stay while a model is trained."""

import copy

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune

from parallel_lab.compress.pruning import Masks, by_score, magnitude, movement, n_m, prunable, saliency
from parallel_lab.model import GPTConfig, build, digit_batches, loss

WIDTHS = (64, 24, 16, 10)
SPARSITIES = [0.0, 0.5, 0.875]


def names(model):
    return [(module, "weight") for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def models():
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    return [build(WIDTHS), conv, build(GPTConfig(width=32, seq=8, tied=False))]


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("model", models(), ids=["MLP", "conv", "GPT"])
def test_layer_by_layer_as_torch(model, sparsity):
    ours, theirs = magnitude(model, sparsity), copy.deepcopy(model)
    for module, name in names(theirs):
        prune.l1_unstructured(module, name, sparsity)
    masks = {name.removesuffix("_mask"): mask.bool() for name, mask in theirs.named_buffers() if name.endswith("_mask")}
    assert ours.keys() == masks.keys() and all(torch.equal(ours[name], masks[name]) for name in masks)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("model", models(), ids=["MLP", "conv", "GPT"])
def test_globally_as_torch(model, sparsity):
    ours, theirs = magnitude(model, sparsity, scope="global"), copy.deepcopy(model)
    prune.global_unstructured(names(theirs), pruning_method=prune.L1Unstructured, amount=sparsity)
    masks = {name.removesuffix("_mask"): mask.bool() for name, mask in theirs.named_buffers() if name.endswith("_mask")}
    assert ours.keys() == masks.keys() and all(torch.equal(ours[name], masks[name]) for name in masks)
    total = sum(mask.numel() for mask in ours.values())
    assert sum(int((~mask).sum()) for mask in ours.values()) == round(sparsity * total)


def test_scopes_differ_where_layers_have_weights_of_different_size():
    """A threshold for each layer is no global one: with weights a tenth as large, one layer loses nearly all."""
    model = build(WIDTHS)
    with torch.no_grad():
        model[0].weight /= 10
    layer, whole = magnitude(model, 0.5), magnitude(model, 0.5, scope="global")
    assert [round(float((~mask).float().mean()), 2) for mask in layer.values()] == [0.5, 0.5, 0.5]
    assert float((~whole["0.weight"]).float().mean()) > 0.6 > 0.1 > float((~whole["2.weight"]).float().mean())
    assert whole.sparsity == pytest.approx(layer.sparsity, abs=1e-3)


def test_what_is_pruned_and_counted():
    tied, untied = (build(GPTConfig(width=32, tied=tied)) for tied in (True, False))
    assert "head.linear.weight" not in prunable(tied) and "head.linear.weight" in prunable(untied)
    assert not any("embedding" in name or "norm" in name or "bias" in name for name in prunable(tied))
    assert Masks(a=torch.tensor([[True, False]]), b=torch.tensor([True, True])).sparsity == 0.5


def test_gradient_scores():
    """|w g| by its definition; movement as -sum of w g over real steps."""
    batches = list(digit_batches(32, 3))
    model = build(WIDTHS, dtype=torch.float64)
    before = copy.deepcopy(model)
    total = sum(loss(model(x.double()), y) for x, y in batches)
    total.backward()
    right = {name: (w * w.grad).abs().detach() for name, w in prunable(model).items()}
    model.zero_grad()
    found = saliency(model, 0.6, batches)
    assert all(torch.equal(found[name], mask) for name, mask in by_score(right, 0.6).items())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))

    scores = {name: torch.zeros_like(w) for name, w in prunable(model).items()}
    again, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=0.5)
    found = movement(model, 0.6, batches, optimizer, scope="global")
    for x, y in batches:
        grads = torch.autograd.grad(loss(again(x.double()), y), list(again.parameters()))
        for (name, w), g in zip(again.named_parameters(), grads, strict=True):
            if name in scores:
                scores[name] -= w.detach() * g
            w.data -= 0.5 * g
    assert all(torch.equal(found[name], mask) for name, mask in by_score(scores, 0.6, "global").items())
    assert all(torch.allclose(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (3, 3)])
def test_n_of_m_as_torch(n, m):
    linear = nn.Linear(24, 5)
    weight = linear.weight.detach().clone()
    mask = n_m(weight, n, m)
    theirs = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, m), zeros_per_block=m - n)
    theirs.prepare(nn.Sequential(linear), [{"tensor_fqn": "0.weight"}])
    theirs.step()
    theirs.squash_mask()
    assert torch.equal(linear.weight, weight * mask)
    groups, values = mask.unflatten(1, (-1, m)), weight.abs().unflatten(1, (-1, m))
    assert (groups.sum(2) == n).all()
    lost = values.masked_fill(groups, -1).amax(2)
    assert (values.masked_fill(~groups, torch.inf).amin(2) >= lost).all()
    with pytest.raises(ValueError, match="expected rows of whole groups of 5"):
        n_m(weight, 2, 5)


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(torch.optim.SGD, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}), (torch.optim.AdamW, {"lr": 0.01})],
)
def test_masks_stay_after_each_step(optimizer_class, options):
    """And without `hold` they are lost at the first one."""
    for held in (True, False):
        model = build(WIDTHS)
        optimizer, masks = optimizer_class(model.parameters(), **options), magnitude(model, 0.75)
        handle = masks.hold(model, optimizer) if held else masks.apply(model)
        for x, y in digit_batches(32, 3):
            loss(model(x), y).backward()
            optimizer.step()
            zeros = [bool((w[~masks[name]] == 0).all()) for name, w in prunable(model).items()]
            assert zeros == [held] * 3
        if handle:
            moments = [value for state in optimizer.state.values() for value in state.values() if value is not None]
            first = next(value for value in moments if value.shape == (24, 64))
            assert (first[~masks["0.weight"]] == 0).all()
            handle.remove()
            optimizer.step()
            loss(model(x), y).backward()
            optimizer.step()
            assert not (model[0].weight[~masks["0.weight"]] == 0).all()


def test_refusals_change_nothing():
    model, other = build(WIDTHS), build((64, 25, 16, 10))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"the mask of 0.weight is \(24, 64\), and the model has \(25, 64\) there"):
        magnitude(model, 0.5).apply(other)
    with pytest.raises(ValueError, match="has no such parameter"):
        magnitude(model, 0.5).apply(nn.Sequential(model))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), other.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="a sparsity of 1"):
        magnitude(model, 1.0)
    with pytest.raises(ValueError, match="scope is 'row'"):
        magnitude(model, 0.5, scope="row")
    with pytest.raises(ValueError, match="nothing to prune"):
        magnitude(nn.ReLU(), 0.5)
