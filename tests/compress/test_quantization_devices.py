"""Quantization with tensors on the CPU and on a GPU: the same codes, bit for bit, where rounding alone decides.

What a GPU sums in another order is compared within 1e-6 of the largest number, and codes of GPTQ by their error.
"""

import pytest
import torch

from parallel_lab.compress import (
    QuantizedLinear,
    activation_aware_model,
    collect,
    convert,
    gptq,
    gptq_model,
    least_squares,
    percentile,
    prepare,
    quantize,
    round_inputs,
    round_to_nearest,
)
from parallel_lab.compress.activation_aware import output_error
from parallel_lab.model import build, digit_batches, train

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per", ["tensor", "channel", "group"])
def test_codes_are_the_same(device, per, symmetric):
    weight = drawn(16, 256)
    how = {"per": per, "group": 64, "symmetric": symmetric}
    right, made = quantize(weight, 4, **how), quantize(weight.to(device), 4, **how)
    assert made.codes.device.type == device and torch.equal(made.codes.cpu(), right.codes)
    assert torch.equal(made.scale.cpu(), right.scale) and torch.equal(made.zero.cpu(), right.zero)
    assert torch.equal(QuantizedLinear(made).weight.cpu(), right.dequantize())


def test_ranges_are_the_same(device):
    rows = drawn(4, 500) ** 3
    low, high = percentile(rows.to(device), 0.98)
    assert torch.equal(torch.stack((low, high)).cpu(), torch.stack(percentile(rows, 0.98)))
    errors = []
    for one in ("cpu", device):
        made = quantize(rows.to(one), 4, per="channel", find=lambda each: least_squares(each, 4))
        errors.append((made.dequantize().cpu() - rows).square().mean().item())
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)


def test_gptq_is_as_good(device):
    weight, x = drawn(16, 64), drawn(200, 64) + 2 * drawn(200, 1, seed=1)
    moment = (x.T @ x).double()
    right, made = (gptq(weight.to(one), moment.to(one), 4).dequantize().cpu() for one in ("cpu", device))
    errors = [
        output_error(weight, one, moment) for one in (right, made, quantize(weight, 4, per="channel").dequantize())
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.05) and errors[1] < 0.8 * errors[2]


def test_models(device):
    model, batches = build((64, 32, 10)).to(device), list(digit_batches(32, 4))
    images = batches[0][0].to(device)
    whole = model(images)
    for made in (
        round_to_nearest(model, 8, per="channel"),
        gptq_model(model, batches, 8),
        activation_aware_model(model, batches, 8, per="channel"),
        round_inputs(round_to_nearest(model, 8, per="channel"), batches),
    ):
        out = made(images)
        assert out.device.type == device and (out - whole).abs().max() < 0.05
        assert all(buffer.device.type == device for buffer in made.buffers())
    assert collect(model, batches)["0"].moment.device.type == device
    rounded = prepare(model, 4, per="channel")
    rounded.load_state_dict(train(rounded, batches, torch.optim.SGD, lr=0.1).weights)
    assert (convert(rounded)(images) - rounded(images)).abs().max() < 1e-5
