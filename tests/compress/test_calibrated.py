"""GPTQ, activation-aware quantization and rounded inputs, against their defining equations."""

import itertools

import pytest
import torch

from parallel_lab.compress import activation_aware, collect, gptq, gptq_model, quantize, round_inputs, round_to_nearest
from parallel_lab.compress.activation_aware import activation_aware_model, output_error, scaled
from parallel_lab.compress.calibration import Inputs
from parallel_lab.compress.quantization import encode
from parallel_lab.model import GPTConfig, build, digit_batches, text_batches

DOUBLE = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def correlated(rows, inputs, seed=0):
    """Inputs that have much in common."""
    return drawn(rows, inputs, seed=seed) + 2 * drawn(rows, 1, seed=seed + 1) * drawn(1, inputs, seed=seed + 2)


def seen(x):
    found = Inputs(x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1]))
    found.see(x)
    return found


def by_least_squares(weight, x, made):
    """After each rounded column all that are free are solved for again, on the grid of `made`."""
    weight, rounded = weight.clone(), torch.zeros_like(weight)
    wanted = x @ weight.T
    for column in range(weight.shape[1]):
        rounded[:, column] = encode(
            weight[:, column, None], made.scale, made.zero, made.bits, made.symmetric
        ).dequantize()[:, 0]
        if column + 1 < weight.shape[1]:
            left = wanted - x[:, : column + 1] @ rounded[:, : column + 1].T
            weight[:, column + 1 :] = torch.linalg.lstsq(x[:, column + 1 :], left).solution.T
    return rounded


@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq_solves_for_the_free_columns_after_each_rounding(symmetric):
    weight, x = drawn(5, 12), correlated(60, 12)
    made = gptq(weight, x.T @ x, 3, symmetric=symmetric, damp=0.0)
    assert torch.equal(made.dequantize(), by_least_squares(weight, x, made))


@pytest.mark.parametrize("per", ["tensor", "channel", "group"])
def test_gptq_is_better_than_rounding_on_correlated_inputs(per):
    """Summed over seeds: it is greedy, and a single weight may be unlucky."""
    errors = {"gptq": 0.0, "nearest": 0.0}
    for seed in range(10):
        weight, x = drawn(8, 32, seed=seed), correlated(200, 32, seed=seed)
        how = {"per": per, "group": 8}
        errors["gptq"] += output_error(weight, gptq(weight, x.T @ x, 3, **how).dequantize(), x.T @ x)
        errors["nearest"] += output_error(weight, quantize(weight, 3, **how).dequantize(), x.T @ x)
    assert errors["gptq"] < 0.5 * errors["nearest"]


def test_gptq_is_near_the_best_of_all_codes():
    """2 bits and 5 inputs are few enough to try all codes: no answer beats the best, and GPTQ comes near to it."""
    found = {"best": 0.0, "gptq": 0.0, "nearest": 0.0}
    codes = torch.tensor(list(itertools.product(range(-2, 2), repeat=5)), dtype=torch.int8)
    for seed in range(20):
        weight, x = drawn(1, 5, seed=seed), correlated(40, 5, seed=seed)
        moment, nearest = x.T @ x, quantize(weight, 2, per="channel")
        greedy = gptq(weight, moment, 2)
        assert torch.equal(greedy.scale, nearest.scale)
        apart = codes * nearest.scale - weight  # of all rows of codes at once
        best = float(((apart @ moment) * apart).sum(1).min())
        mine = output_error(weight, greedy.dequantize(), moment)
        assert best <= mine * (1 + 1e-12)
        found["best"] += best
        found["gptq"] += mine
        found["nearest"] += output_error(weight, nearest.dequantize(), moment)
    assert found["gptq"] - found["best"] < 0.5 * (found["nearest"] - found["best"]), found


def test_gptq_rounds_to_nearest_where_inputs_are_not_correlated():
    weight = drawn(4, 16)
    moment = torch.diag(torch.rand(16, dtype=DOUBLE) + 0.1)
    for how in ({"per": "tensor"}, {"per": "channel", "symmetric": False}, {"per": "group", "group": 4}):
        made, nearest = gptq(weight, moment, 4, **how), quantize(weight, 4, **how)
        assert torch.equal(made.codes, nearest.codes) and torch.equal(made.scale, nearest.scale)
    moment[3] = 0  # an input that is always 0
    assert torch.equal(gptq(weight, moment, 4).codes, quantize(weight, 4, per="channel").codes)
    with pytest.raises(ValueError, match="16 inputs do not divide into groups of 5"):
        gptq(weight, moment, 4, per="group", group=5)


def test_activation_aware_scaling_changes_nothing_until_codes_are_rounded():
    """With numbers that are on the grid whatever the factor, W diag(s) over s is W."""
    weight, x = drawn(6, 16), drawn(50, 16) * torch.logspace(-2, 2, 16, dtype=DOUBLE)
    for exponent in (0.0, 0.5, 1.0):
        made = scaled(weight, seen(x), exponent, 8)
        assert torch.allclose((x / made.factors) @ (weight * made.factors).T, x @ weight.T, rtol=1e-12, atol=1e-12)
    assert torch.equal(scaled(weight, seen(x), 0.0, 4).factors, torch.ones(16, dtype=DOUBLE))


def test_activation_aware_is_never_worse_than_rounding_on_what_it_saw():
    weight, x = drawn(6, 64), drawn(200, 64)
    x[:, :2] *= 30  # a few inputs that are large, as the paper finds them
    inputs = seen(x)
    made = activation_aware(weight, inputs, 4, per="channel")
    nearest = quantize(weight, 4, per="channel")
    errors = [output_error(weight, one.dequantize(), inputs.moment) for one in (made, nearest)]
    assert errors[0] < 0.75 * errors[1]
    assert errors[0] == pytest.approx(((x @ (weight - made.dequantize()).T) ** 2).sum().item())


def test_collect_sums_what_a_linear_is_given():
    model, batches = build((64, 32, 10), dtype=DOUBLE), digit_batches(8, 3)
    found = collect(model, batches)
    x = torch.cat([images for images, _ in batches]).double()
    hidden = model[1](model[0](x))
    for name, given in (("0", x), ("2", hidden)):
        assert found[name].rows == 24
        assert torch.allclose(found[name].moment, given.T @ given, rtol=1e-12)
        assert torch.allclose(found[name].size, given.abs().sum(0), rtol=1e-12)
    assert not any(module._forward_pre_hooks for module in model.modules())
    for use in (collect, gptq_model, activation_aware_model, round_inputs):
        with pytest.raises(ValueError, match="no batches to calibrate with"):
            use(model, [])


def test_rounded_inputs_could_be_summed_in_integers():
    """S_x S_w (q_x - Z_x) q_w, summed in integers, is what the linear computes."""
    model, batches = build((64, 32, 10)), list(digit_batches(16, 4))
    made = round_inputs(round_to_nearest(model, 8, per="channel"), batches)
    linear, x = made[0], batches[0][0]
    codes = encode(x, linear.input_scale, linear.input_zero, 8, symmetric=False).codes
    weight = linear.quantized()
    sums = (codes.long() - linear.input_zero) @ weight.codes.long().T
    wanted = sums * (linear.input_scale.double() * weight.scale.double()) + linear.bias
    assert torch.allclose(linear(x).double(), wanted, atol=1e-5)
    assert not torch.equal(made(x), round_to_nearest(model, 8, per="channel")(x))


@pytest.mark.parametrize("use", [gptq_model, activation_aware_model])
def test_a_whole_gpt(use):
    """All linears, those behind quantized ones too; the model that came in stays as it was."""
    config = GPTConfig(seq=16, width=16, layers=1, heads=2, tied=False)
    model, batches = build(config), list(text_batches(16, 4, 2))
    before = [parameter.clone() for parameter in model.parameters()]
    made = use(model, batches, 8)
    tokens = batches[0][0]
    assert (made(tokens) - model(tokens)).abs().max() < 0.05
    assert not collect(made, batches)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
