"""Scales per tensor and per block, from now and from before; microscaling, held against torchao's."""

import warnings

import pytest
import torch

from parallel_lab.precision import float8, microscaling
from parallel_lab.precision.float8 import E4M3, E5M2, DelayedScaling, matmul, quantize
from parallel_lab.precision.formats import E2M1


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("format", [E4M3, E5M2, E2M1], ids=lambda each: each.name)
def test_one_scale_puts_the_largest_on_the_largest(format):
    x = drawn(6, 50)
    made = quantize(x, format)
    assert made.scale == x.abs().max() / format.largest and made.values.abs().max() == format.largest
    assert torch.equal(format.decode(made.codes), made.values)
    off = (made.dequantize() - x).abs()
    assert (off <= torch.maximum(x.abs() * format.unit_roundoff, made.scale * format.least / 2) * 1.0001).all()
    assert made.stored_bytes == 300 * format.bits / 8 + 4
    if format.dtype:
        assert torch.equal(made.values, (x / made.scale).to(format.dtype).float())


@pytest.mark.parametrize("shape", [(5, 300), (2, 3, 130), (7,)])
def test_blocks_have_scales_of_their_own_also_at_the_edge(shape):
    x = drawn(*shape)
    made = quantize(x, block=(2, 128))
    rows, columns = x.shape[:-1].numel(), x.shape[-1]
    assert made.scale.shape == (-(-rows // 2), -(-columns // 128)) and made.values.shape == x.shape
    flat, back = x.reshape(-1, columns), made.dequantize().reshape(-1, columns)
    for r in range(made.scale.shape[0]):
        for c in range(made.scale.shape[1]):
            part = (slice(2 * r, 2 * r + 2), slice(128 * c, 128 * c + 128))
            assert torch.equal(back[part], quantize(flat[part]).dequantize())


def test_an_outlier_costs_a_floating_format_little():
    """Three hundred times the others: with one scale E4M3 keeps its digits, until numbers fall among its subnormals."""
    x = drawn(64, 128)
    x[0, 0] = 1000.0
    usual = x[1:]

    def off(made):
        return float((made.dequantize()[1:] - usual).norm() / usual.norm())

    assert off(quantize(x)) < 0.04 and off(quantize(x, block=(1, 128))) < 0.03
    assert off(quantize(x, E2M1)) > 0.9 and off(quantize(x, E2M1, block=(1, 128))) < 0.25


def test_zeros_and_what_is_not_finite():
    assert torch.equal(quantize(torch.zeros(3)).dequantize(), torch.zeros(3))
    x = drawn(2, 40)
    x[1, 3] = torch.inf
    for made in (quantize(x, block=(1, 40)), microscaling.quantize(x), microscaling.quantize(x, microscaling.MXFP4)):
        assert made.dequantize()[0].isfinite().all() and made.dequantize()[1, :32].isnan().all()
    with pytest.raises(ValueError, match="block=0"):
        quantize(x, block=(0, 4))


def test_delayed_scaling_looks_back():
    scaling = DelayedScaling(history=3)
    xs = [torch.tensor([1.0, top]) for top in (4.0, 8.0, 2.0, 2.0, 2.0, 2.0)]
    made = [scaling.quantize(x) for x in xs]
    # By itself, then by the largest of the three steps before.
    assert [round(each.scale.item() * 448, 5) for each in made] == [4, 4, 8, 8, 8, 2]
    assert round(made[1].dequantize()[1].item(), 5) == 4.0  # it had grown, and saturates
    assert scaling.quantize(torch.tensor([torch.inf])).dequantize().isnan().all()
    assert round(scaling.quantize(xs[0]).scale.item() * 448, 5) == 2.0  # which is not remembered
    assert round(DelayedScaling(margin=1).quantize(xs[0]).scale.item() * 448, 5) == 8.0


def test_a_product_of_codes():
    a, b = quantize(drawn(5, 32)), quantize(drawn(32, 4, seed=1), E5M2)
    torch.testing.assert_close(matmul(a, b), a.dequantize() @ b.dequantize(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="inside the sum"):
        matmul(quantize(drawn(5, 32), block=(1, 32)), b)


def test_microscaling_has_powers_of_two_and_their_bytes():
    x = drawn(6, 96) * torch.logspace(-6, 6, 6)[:, None]
    for format in microscaling.ALL:
        made = microscaling.quantize(x, format)
        codes = microscaling.scale_codes(made.scale)
        assert made.scale.shape == (6, 3) and torch.equal(microscaling.scales(codes), made.scale)
        assert made.stored_bytes * 8 == x.numel() * format.bits
        assert torch.equal(format.element.decode(format.element.encode(made.values)), made.values)
        amax = x.reshape(6, 3, 32).abs().amax(2) / made.scale
        top = 2.0 ** torch.tensor(format.element.largest).log2().floor()
        assert ((amax >= top) & (amax < 2 * top)).all()
        off = (made.dequantize() - x).abs().reshape(6, 3, 32).amax(2) / (made.scale * format.element.largest)
        assert (off <= 2 * top / format.element.largest - 1 + 2**-3).all(), format
    assert [format.bits for format in microscaling.ALL] == [8.25, 8.25, 6.25, 6.25, 4.25, 8.25]


def test_eight_bits_of_whole_numbers():
    element = microscaling.MXINT8.element
    codes = torch.arange(256)
    numbers = element.decode(codes)
    assert numbers[:3].tolist() == [0, 1 / 64, 2 / 64] and numbers[255] == -1 / 64 and numbers.max() == 127 / 64
    assert torch.equal(element.encode(numbers)[codes != 128], codes.to(torch.uint8)[codes != 128])
    assert element.round(torch.tensor([3.0, -3.0, 1 / 128, 3 / 128])).tolist() == [127 / 64, -127 / 64, 0, 2 / 64]


def test_microscaling_is_torchao_s():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    x = drawn(8, 64) * torch.logspace(-4, 4, 8)[:, None]
    x[0] = 0
    for format in (microscaling.MXFP8, microscaling.MXFP8_E5M2):
        scale, values = theirs.to_mx(x, format.element.dtype, 32)
        made = microscaling.quantize(x, format)
        assert torch.equal(microscaling.scale_codes(made.scale), scale.view(torch.uint8).reshape(8, 2))
        assert torch.equal(made.values, values.float().reshape(8, 64))
    scale, values = theirs.to_mx(x, torch.float4_e2m1fn_x2, 32)
    made = microscaling.quantize(x, microscaling.MXFP4)
    packed = values.view(torch.uint8).reshape(8, 32)
    both = torch.stack([packed & 15, packed >> 4], -1).reshape(8, 64)
    assert torch.equal(microscaling.scale_codes(made.scale), scale.view(torch.uint8).reshape(8, 2))
    assert torch.equal(float8.decode(both, E2M1), made.values)
