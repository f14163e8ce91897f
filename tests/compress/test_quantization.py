"""Codes, scales and zero points: bit for bit those of PyTorch and of torchao, and what they cost."""

import warnings

import pytest
import torch
from torch.ao.quantization import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver

from parallel_lab.compress import (
    Observer,
    QuantizedLinear,
    formulas,
    least_squares,
    min_max,
    percentile,
    quantize,
    round_to_nearest,
)
from parallel_lab.compress.quantization import code_range, pack, unpack
from parallel_lab.model import GPTConfig, build

OF_TORCH = {True: (torch.qint8, torch.per_tensor_symmetric), False: (torch.quint8, torch.per_tensor_affine)}
PER_CHANNEL = {True: torch.per_channel_symmetric, False: torch.per_channel_affine}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batches(kind):
    """Three of them; positive ones, and one without any spread, are where a range has to be made to reach 0."""
    if kind == "zeros":
        return [torch.zeros(5, 7)] * 3
    made = [drawn(5, 7, seed=seed) * (seed + 1) for seed in range(3)]
    return [one.abs() + 1 for one in made] if kind == "positive" else made


@pytest.mark.parametrize("kind", ["both signs", "positive", "zeros"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dim", [None, 0, 1])
def test_scale_and_zero_are_those_of_torch_observers(kind, symmetric, dim):
    dtype, scheme = OF_TORCH[symmetric]
    theirs = MinMaxObserver(dtype=dtype, qscheme=scheme)
    if dim is not None:
        theirs = PerChannelMinMaxObserver(ch_axis=dim, dtype=dtype, qscheme=PER_CHANNEL[symmetric])
    ours = Observer(symmetric=symmetric, dim=dim)
    for batch in batches(kind):
        theirs(batch)
        ours.see(batch)
    (scale, zero), (wanted, at) = ours.grid(), theirs.calculate_qparams()
    assert torch.equal(scale, wanted) and torch.equal(zero, at.to(torch.int32))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_numbers_are_those_of_torch_fake_quantize(bits, symmetric):
    weight = drawn(6, 50)
    made = quantize(weight, bits, per="channel", symmetric=symmetric)
    wanted = torch.fake_quantize_per_channel_affine(weight, made.scale, made.zero, 0, *code_range(bits, symmetric))
    assert torch.equal(made.dequantize(), wanted)


@pytest.fixture(scope="module")
def torchao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torchao.quantization")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_scales_and_zero_points_are_those_of_torchao(torchao, bits, symmetric):
    own, weight = torchao.quant_primitives, drawn(16, 256)
    kind = own.MappingType.SYMMETRIC if symmetric else own.MappingType.ASYMMETRIC
    dtype, ends = torch.int8 if symmetric else torch.uint8, code_range(bits, symmetric)
    for per, block in (("tensor", (16, 256)), ("channel", (1, 256)), ("group", (1, 64))):
        scale, zero = own.choose_qparams_affine(weight, kind, block, dtype, *ends, eps=torch.finfo(torch.float32).eps)
        codes = own.quantize_affine(weight, block, scale, zero, dtype, *ends)
        made = quantize(weight, bits, per=per, group=64, symmetric=symmetric)
        assert torch.equal(made.codes, codes) and torch.equal(made.scale, scale.flatten())
        assert torch.equal(made.zero, zero.flatten().to(torch.int32))
        assert torch.equal(made.dequantize(), own.dequantize_affine(codes, block, scale, zero, dtype, *ends))


def test_int8_and_grouped_int4_weights_are_those_of_torchao(torchao):
    for bits, how, config in (
        (8, {"per": "channel"}, torchao.Int8WeightOnlyConfig(version=2)),
        (
            4,
            {"per": "group", "group": 64},
            torchao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=torchao.PerGroup(64)),
        ),
    ):
        linear = torch.nn.Linear(256, 16, bias=False)
        ours = round_to_nearest(linear, bits, **how)
        torchao.quantize_(linear, config)
        assert torch.equal(ours.weight, linear.weight.dequantize())


def test_error_is_a_twelfth_of_the_step_squared():
    weight = torch.rand(200_000, generator=torch.Generator().manual_seed(0)).view(4, -1) - 0.5
    for bits in (4, 6, 8):
        made = quantize(weight, bits, symmetric=False)
        apart = (made.dequantize() - weight).square().mean().item()
        assert apart == pytest.approx(formulas.uniform_error(made.scale.item()), rel=0.02)
        assert (made.dequantize() - weight).abs().max() <= made.scale / 2 * (1 + 1e-5)


def test_an_outlier_costs_those_that_share_its_scale():
    weight = drawn(8, 128)
    weight[3, 5] = 100.0

    def error(row, **how):
        return (quantize(weight, 8, **how).dequantize() - weight)[row].square().mean().item()

    assert error(0) > 100 * error(0, per="channel")
    assert error(3, per="channel") > 2 * error(3, per="group", group=32)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_are_packed_and_come_back(bits, symmetric):
    made = quantize(drawn(5, 7), bits, per="channel", symmetric=symmetric)
    packed = pack(made.codes, bits)
    assert packed.shape == (bits, 5) and packed.dtype is torch.uint8
    assert torch.equal(unpack(packed, made.codes.shape, symmetric), made.codes)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_linear_holds_what_is_counted_and_no_float_weight(symmetric):
    linear = torch.nn.Linear(256, 24)
    made = quantize(linear.weight, 4, per="group", group=64, symmetric=symmetric)
    module = QuantizedLinear(made, linear.bias)
    assert sum(buffer.nbytes for buffer in module.buffers()) == made.stored_bytes
    zeros = 0 if symmetric else 4
    assert made.stored_bytes * 8 == formulas.bits_a_number(4, 64, 32, zeros) * linear.weight.numel()
    assert [name for name, _ in module.named_parameters()] == ["bias"]
    again = QuantizedLinear(made, torch.zeros(24))
    again.load_state_dict(module.state_dict())
    x = drawn(3, 256)
    wanted = torch.nn.functional.linear(x, made.dequantize(), linear.bias)
    assert torch.equal(module(x), wanted) and torch.equal(again(x), wanted)


def test_formula_of_grouped_four_bits():
    assert formulas.bits_a_number(4, 128, scale_bits=16) == 4.125
    assert formulas.bits_a_number(4, 128, scale_bits=16, zero_bits=16) == 4.25


def test_percentile_clips_as_many_at_either_end():
    rows = torch.arange(1001.0).view(1, -1).repeat(2, 1)
    low, high = percentile(rows, 0.98)
    assert low.tolist() == [10, 10] and high.tolist() == [990, 990]


@pytest.mark.parametrize("symmetric", [True, False])
def test_least_squares_beats_min_max_and_is_as_good_as_torch_histogram(symmetric):
    x = drawn(1, 4096) ** 3  # long tails
    theirs = HistogramObserver(dtype=OF_TORCH[symmetric][0], qscheme=OF_TORCH[symmetric][1])
    theirs(x)
    assert theirs.min_val == x.min() and theirs.max_val == x.max()
    scale, zero = theirs.calculate_qparams()
    histogram = torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), *code_range(8, symmetric))

    def error(find):
        made = quantize(x, symmetric=symmetric, find=find)
        return (made.dequantize() - x).square().mean().item()

    best = error(lambda rows: least_squares(rows, 8, symmetric))
    assert best <= error(min_max)
    assert best <= (histogram - x).square().mean().item() * 1.01  # its ends are finer, its errors estimates


def test_tied_output_layer_stays():
    model = build(GPTConfig(layers=1))
    made = round_to_nearest(model, 8, per="channel")
    assert made.head.linear.weight is made.embedding.tokens.weight
    assert sum(isinstance(module, QuantizedLinear) for module in made.modules()) == 6
    assert isinstance(round_to_nearest(build(GPTConfig(layers=1, tied=False)), 8).head.linear, QuantizedLinear)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), build(GPTConfig(layers=1)).parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ("9 bits: expected 2 to 8", {"bits": 9}),
        ("per is 'row': expected tensor, channel or group", {"per": "row"}),
        ("12 inputs do not divide into groups of 5", {"per": "group", "group": 5}),
    ],
)
def test_refusals(said, how):
    with pytest.raises(ValueError, match=said):
        quantize(drawn(4, 12), **how)
    with pytest.raises(ValueError, match="has seen nothing"):
        Observer().grid()
