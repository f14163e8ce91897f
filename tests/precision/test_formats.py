"""Formats, held against torch's casts over all numbers of 16 bits, and against torchao's formats of 6 and 4 bits."""

import math
import warnings

import pytest
import torch

from parallel_lab.precision import float8
from parallel_lab.precision.formats import (
    BFLOAT16,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    FLOAT16,
    FLOAT32,
    FORMATS,
    exponent_of,
    format_of,
    power_of_two,
)

NARROW = [FLOAT16, BFLOAT16, E5M2, E4M3]


def every_number(dtype):
    """All 65,536 numbers of a 16-bit dtype, in float32."""
    return torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).float()


def bits_of(x):
    return x.view(torch.uint8) if x.element_size() == 1 else x.view(torch.int16).int() & 0xFFFF


@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("format", NARROW, ids=lambda each: each.name)
def test_codes_are_those_of_torch(format, source):
    """Bit by bit, signs of zeros included; of a NaN only that it is one. Older versions of torch do not saturate."""
    x = every_number(source)
    saturates = bool(torch.tensor(500.0).to(E4M3.dtype).float() == 448) if format is E4M3 else None
    codes, theirs = format.encode(x, saturate=saturates), x.to(format.dtype)
    same = (codes == bits_of(theirs)) | (format.decode(codes).isnan() & theirs.float().isnan())
    assert same.all(), x[~same]


@pytest.mark.parametrize("format", NARROW, ids=lambda each: each.name)
def test_each_code_stands_for_torch_s_number(format):
    codes = torch.arange(2**format.bits, dtype=torch.int32)
    raw = codes.to(torch.uint8) if format.bits == 8 else codes.to(torch.int16)
    numbers, theirs = format.decode(codes), raw.view(format.dtype).float()
    assert torch.equal(numbers.nan_to_num(-7), theirs.nan_to_num(-7))
    known = ~numbers.isnan()
    assert torch.equal(format.encode(numbers)[known].int(), codes[known].int())


def test_every_format_encodes_what_it_decodes():
    """Also those that torch lacks; codes stand in the order of their numbers."""
    for format in FORMATS[1:]:
        numbers = format.decode(torch.arange(format.largest_code + 1))
        assert (numbers.diff() > 0).all() and numbers[1] == format.least and numbers[-1] == format.largest
        assert torch.equal(format.encode(-numbers).int(), torch.arange(len(numbers)).int() + (1 << (format.bits - 1)))


def test_ties_go_to_even_and_what_overflows_to_the_top():
    x = torch.tensor([1 + 2**-4, 1 + 3 * 2**-4, 2**-10, 3 * 2**-10, 464.0, 465.0, -1e9, math.inf])
    assert E4M3.round(x).tolist() == [1, 1.25, 0, 2**-8, 448, 448, -448, 448]
    assert E4M3.round(x, saturate=False)[-3:].isnan().all() and E4M3.round(x, saturate=False)[4] == 448
    assert E5M2.round(x[-2:]).tolist() == [-math.inf, math.inf]
    assert E5M2.round(x[-2:], saturate=True).tolist() == [-57344, 57344]
    assert FLOAT16.round(torch.tensor([2048.0 + 1, 2**-25, 2**-25 * 1.001])).tolist() == [2048, 0, 2**-24]
    assert BFLOAT16.round(torch.tensor([1 + 2**-8, 1 + 2**-7])).tolist() == [1, 1 + 2**-7]


def test_limits_are_those_that_torch_gives():
    for format in (FLOAT32, *NARROW):
        info = torch.finfo(format.dtype)
        assert (format.largest, format.least_normal, 2 * format.unit_roundoff) == (info.max, info.tiny, info.eps)
    assert [(each.bits, each.largest, each.least) for each in (E3M2, E2M3, E2M1)] == [
        (6, 28, 0.0625),
        (6, 7.5, 0.125),
        (4, 6, 0.5),
    ]


def test_formats_of_6_and_4_bits_are_torchao_s():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        casts = pytest.importorskip("torchao.prototype.custom_fp_utils")
    x = every_number(torch.bfloat16)
    x = x[x.isfinite()]
    for format in (E3M2, E2M3, E2M1):
        theirs = casts._f32_to_floatx_unpacked(x, format.exponent_bits, format.mantissa_bits)
        assert torch.equal(format.encode(x), theirs), format


def test_rounding_is_off_by_half_a_step_at_the_most():
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)).double()
    for format in NARROW:
        normal = x[(x.abs() >= format.least_normal) & (x.abs() <= format.largest)]
        assert ((format.round(normal) - normal).abs() <= format.unit_roundoff * normal.abs()).all()


def test_powers_and_exponents_are_exact():
    exponents = torch.arange(-1000, 1000)
    assert torch.equal(exponent_of(power_of_two(exponents)), exponents)
    assert power_of_two(torch.tensor([-3, 0, 10])).tolist() == [0.125, 1, 1024]


def test_a_dtype_names_its_format():
    assert format_of(torch.float8_e4m3fn) is E4M3 and format_of(E2M1) is E2M1
    with pytest.raises(ValueError, match=r"torch\.int8 has no format here"):
        format_of(torch.int8)
    assert float8.encode(torch.ones(2), E4M3).tolist() == [56, 56]
    assert float8.decode(torch.tensor([56]), E4M3).tolist() == [1.0]
