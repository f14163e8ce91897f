"""The cut model computes what the masked dense one does, and its matrices are really smaller."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from parallel_lab.compress import lora, structured
from parallel_lab.compress.structured import channels, choose, cut, heads, mask_of, neurons
from parallel_lab.model import GPTConfig, build, digit_batches, loss

GPT2 = GPTConfig(seq=16, width=48, heads=12, layers=2)
LLAMA = dataclasses.replace(GPT2, kv_heads=4, positions="rotary", gated=True, norm="rms", bias=False, tied=False)
MIXTRAL = dataclasses.replace(LLAMA, experts=3, active_experts=2)
SPARSITIES = [0.0, 0.5, 0.99]


def conv_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(
            nn.Conv2d(8, 12, 3, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 4, 16),
            nn.ReLU(),
            nn.Linear(16, 10),
        ),
    )
    net(torch.randn(32, 1, 8, 8))  # running statistics that are not the initial ones
    return net.double()


def whole_numbers(model):
    """Weights of small whole numbers: sums are then exact in any order, and equal means equal to the last bit."""
    for parameter in model.parameters():
        parameter.data = (parameter.data * 40).round()
    return model


def both(model, find, sparsity):
    """The cut model, and the dense one with masks."""
    kept = choose(model, find(model), sparsity)
    masked = copy.deepcopy(model)
    mask_of(model, kept).apply(masked)
    return cut(model, kept), masked


def elements(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_neurons_of_an_mlp_to_the_last_bit(sparsity):
    model = whole_numbers(build((64, 40, 24, 10), dtype=torch.float64))
    small, masked = both(model, neurons, sparsity)
    (x, _), *_ = digit_batches(32, 1)
    x = (x * 16).double()
    assert torch.equal(small(x), masked(x))
    widths = [max(1, each - round(sparsity * each)) for each in (40, 24)]
    assert [p.shape for p in small.parameters() if p.dim() == 2] == [
        (widths[0], 64),
        (widths[1], widths[0]),
        (10, widths[1]),
    ]
    assert [layer.out_features for layer in small if isinstance(layer, nn.Linear)] == [*widths, 10]
    assert elements(masked) == elements(model) == 64 * 40 + 40 + 40 * 24 + 24 + 24 * 10 + 10


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("config", [GPT2, LLAMA, MIXTRAL], ids=["GPT-2", "Llama", "Mixtral"])
@pytest.mark.parametrize("find", [neurons, heads])
def test_gpt(find, config, sparsity):
    model = build(config, dtype=torch.float64)
    for parameter in model.parameters():  # biases and norms that are not 0 and 1
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    small, masked = both(model, find, sparsity)
    tokens = torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(0))
    assert (small(tokens) - masked(tokens)).abs().max() < 1e-12
    if find is heads:
        units = config.kv_heads or config.heads
        left = max(1, units - round(sparsity * units))
        block = small.blocks[0].attention
        assert block.query.weight.shape == (48 * left // units, 48) == block.out.weight.T.shape
        assert block.key.weight.shape == block.value.weight.shape == (4 * left, 48)
    else:
        left = max(1, 192 - round(sparsity * 192))
        wide = [p.shape for name, p in small.named_parameters() if name.endswith(("up.weight", "gate.weight"))]
        thin = [p.shape for name, p in small.named_parameters() if name.endswith("down.weight")]
        assert set(wide) == {(left, 48)} and set(thin) == {(48, left)}
        assert len(thin) == config.layers * config.experts and len(wide) == len(thin) * (1 + config.gated)
    assert elements(small) < elements(model) or sparsity == 0


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_channels_of_a_convolution_with_batch_norm_and_flatten(sparsity):
    model = conv_net()
    small, masked = both(model, channels, sparsity)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    for net in (small, masked):
        net.eval()
    assert (small(x) - masked(x)).abs().max() < 1e-12
    first, second = (max(1, each - round(sparsity * each)) for each in (8, 12))
    assert small[0].weight.shape == (first, 1, 3, 3) and small[4].weight.shape == (second, first, 3, 3)
    assert small[1].running_var.shape == (first,) and small[7].weight.shape == (16, second * 4)
    assert (small[1].num_features, small[4].in_channels, small[4].out_channels) == (first, first, second)


def test_channels_without_batch_norm_to_the_last_bit():
    model = whole_numbers(nn.Sequential(*(layer for layer in conv_net() if not isinstance(layer, nn.BatchNorm2d))))
    small, masked = both(model, channels, 0.5)
    x = torch.randint(16, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(small(x), masked(x))


def test_gradients_are_those_of_the_masked_model():
    model = build(LLAMA, dtype=torch.float64)
    kept = choose(model, heads(model), 0.5)
    small, masks = cut(model, kept), mask_of(model, kept)
    masks.apply(model)
    tokens = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(0))
    for net in (small, model):
        loss(net(tokens[:, :-1]), tokens[:, 1:]).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    for name, p in small.named_parameters():
        stays = grads[name][masks[name]].view(p.shape) if name in masks else grads[name]
        assert (p.grad - stays).abs().max() < 1e-12, name


def test_the_least_go_and_the_score_does_not_see_a_scale():
    """A ReLU's neuron scaled up before and down after is the same neuron."""
    model = build((64, 8, 10), dtype=torch.float64)
    (joint,) = neurons(model)
    before = structured.score(model, joint)
    right = model[0].weight.norm(dim=1) * model[2].weight.norm(dim=0)
    assert torch.allclose(before, right.detach())
    ((_, kept),) = choose(model, [joint], 0.5)
    assert set(kept.tolist()) == set(before.argsort()[4:].tolist())
    with torch.no_grad():
        model[0].weight[3] *= 100
        model[0].bias[3] *= 100
        model[2].weight[:, 3] /= 100
    assert torch.allclose(structured.score(model, joint), before)


def test_the_whole_stays_as_it_is_and_short_names_do_all():
    model = build(GPT2)
    before = copy.deepcopy(model.state_dict())
    small = structured.prune_heads(structured.prune_neurons(model, 0.5), 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert small.blocks[1].feed_forward.up.out_features == 96 and small.blocks[1].attention.out.in_features == 24
    assert small.head.linear.weight is small.embedding.tokens.weight
    assert structured.prune_channels(conv_net(), 0.5)[0].out_channels == 4


def test_rows_are_those_of_torch_where_all_columns_after_them_are_alike():
    model = build((64, 24, 10))
    model[2].weight.data.fill_(1.0)
    ((_, kept),) = choose(model, neurons(model), 0.75)
    prune.ln_structured(model[0], "weight", 0.75, n=2, dim=0)
    assert kept.tolist() == model[0].weight_mask[:, 0].nonzero().flatten().tolist()


def test_refusals():
    with pytest.raises(ValueError, match="nothing to prune: GPT has no units"):
        structured.prune_heads(lora(build(GPT2), 2, 4), 0.5)
    with pytest.raises(ValueError, match="nothing to prune: GPT has no units"):
        structured.prune_neurons(lora(build(GPT2), 2, 4), 0.5)
    with pytest.raises(ValueError, match="nothing to prune: Linear has no units"):
        structured.prune_neurons(nn.Linear(3, 3), 0.5)
    with pytest.raises(ValueError, match="a sparsity of 1"):
        structured.prune_neurons(build((64, 8, 10)), 1)
    chain = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    assert neurons(chain) == []  # a layer norm would see that neurons are gone
    grouped = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 4, 3))
    assert channels(grouped) == []
