"""Rounding by chance and Kahan's second number: updates that rounding to nearest loses."""

import math

import pytest
import torch
from torch import nn

from parallel_lab.precision import KahanSGD, exponents, formulas, kahan_sum, stochastic_round
from parallel_lab.precision.formats import BFLOAT16, E2M1, E4M3, FLOAT16

DTYPES = [torch.bfloat16, torch.float16, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_by_chance_is_right_in_the_mean(dtype):
    """Of 20,000 draws of each number the mean is within five standard deviations, also among the subnormals."""
    generator = torch.Generator().manual_seed(0)
    least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for value in (1.3, -0.7123, 5.5 * least, 1.0):
        x = torch.full((20_000,), value, dtype=torch.float64)
        got = stochastic_round(x, dtype, generator)
        assert got.dtype is dtype
        found = got.double().unique().tolist()
        width = found[-1] - found[0]
        assert len(found) <= 2 and found[0] <= value <= found[-1]
        assert abs(got.double().mean() - value) <= 5 * width / 2 / 20_000**0.5
        nearest = torch.tensor(value, dtype=torch.float64).to(dtype).double().item()
        assert any(math.isclose(nearest, each, rel_tol=0, abs_tol=0) for each in found)


def test_what_is_representable_stays_and_the_same_dice_give_the_same():
    x = torch.tensor([0.0, -0.0, 1.0, 448.0, -0.015625, torch.inf, torch.nan])
    assert torch.equal(stochastic_round(x[:5], torch.float8_e4m3fn).float(), x[:5])
    assert stochastic_round(x[5:], torch.bfloat16).tolist()[0] == torch.inf
    assert stochastic_round(x[6:], torch.float16).isnan().all()
    draws = [stochastic_round(torch.rand(50), E2M1, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert draws[0].dtype is torch.float32
    one, two = (stochastic_round(torch.ones(9) / 3, E4M3, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.float(), two.float())


def run(step, steps=1000):
    """1.0 in bfloat16 after so many updates of 1e-4, each below half a step."""
    weight = nn.Parameter(torch.ones(500, dtype=torch.bfloat16))
    for number in range(steps):
        weight.grad = torch.full_like(weight, -1.0)
        step(weight, number)
    return weight.float().mean().item()


def test_small_updates_reach_the_weight():
    generator, kept = torch.Generator().manual_seed(0), {}

    def nearest(weight, _):
        weight.data += 1e-4

    def chance(weight, _):
        weight.data.copy_(stochastic_round(weight.data.float() + 1e-4, torch.bfloat16, generator))

    def kahan(weight, _):
        kept.setdefault("sgd", KahanSGD([weight], 1e-4)).step()

    assert run(nearest) == 1.0
    assert abs(run(chance) - 1.1) < 2e-3
    assert abs(run(kahan) - 1.1) < 2**-8


def test_kahan_s_sgd_with_momentum_follows_float32():
    narrow, wide = nn.Parameter(torch.ones(4, dtype=torch.bfloat16)), nn.Parameter(torch.ones(4))
    ours, right = KahanSGD([narrow], 1e-3, momentum=0.5), torch.optim.SGD([wide], 1e-3, momentum=0.5)
    for step in range(100):
        narrow.grad = torch.tensor([1.0, -1.0, 0.5, step % 2], dtype=torch.bfloat16)
        wide.grad = narrow.grad.float()
        assert ours.step(lambda: 7) == 7
        right.step()
    # All is in bfloat16 but what is kept of the additions: the momentum loses some, the weight no whole step.
    assert (narrow.float() - wide).abs().max() < 2**-7
    assert sum(each.nbytes for each in ours.state[narrow].values()) == 2 * narrow.nbytes


def test_kahan_s_sum():
    xs = torch.full((1000,), 0.1, dtype=torch.float16)
    assert abs(kahan_sum(xs).item() - 1000 * xs[0].item()) <= 0.5 * 2**-4
    assert abs(sum(xs[1:], xs[0]).item() - 100) > 0.3
    with pytest.raises(ValueError, match="no tensors"):
        kahan_sum([])


def test_updates_are_lost_where_the_formula_says():
    for format in (BFLOAT16, FLOAT16):
        always, never = formulas.lost_update(format)
        weights = torch.linspace(1, 2, 257, dtype=torch.float64)[1:-1]
        weights = format.round(weights).unique()
        weights = weights[(weights > 1) & (weights < 2)]
        assert torch.equal(format.round(weights * (1 + 0.99 * always)), weights)
        assert (format.round(weights * (1 + 1.01 * never)) > weights).all()


def test_a_histogram_counts_every_number():
    x = torch.tensor([1.0, 1.5, -3.0, 0.25, 0.0, 0.0, torch.inf])
    found = exponents.histogram([x, torch.tensor([])])
    assert found == ({-2: 1, -1: 0, 0: 2, 1: 1}, 2, 1)
    assert exponents.histogram([x], scale=4.0).counts == {0: 1, 1: 0, 2: 2, 3: 1}
    assert exponents.histogram([torch.zeros(3)]) == ({}, 3, 0)


def test_what_a_format_loses_of_gradients():
    """Exactly what torch's cast makes of them; a scale of 2^16 brings them back, one of 2^40 is too much."""
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(50, 40, generator=generator) * 2.0**-22, torch.zeros(5)]
    for scale in (1.0, 2.0**16, 2.0**39):
        zero, subnormal, overflow = exponents.lost(grads, torch.float16, scale=scale)
        theirs = (grads[0] * scale).half()
        assert zero == (theirs == 0).double().mean().item()
        assert overflow == theirs.isinf().double().mean().item()
        assert subnormal == ((theirs != 0) & (theirs.abs() < 2.0**-14)).double().mean().item()
        assert exponents.lost(grads, torch.bfloat16, scale=scale) == (0, 0, 0)
    assert exponents.lost(grads, torch.float16).zero > 0.1
    assert exponents.lost(grads, torch.float16, scale=2.0**16)[::2] == (0, 0)
    assert exponents.lost([torch.tensor([6.0, 6.9, 8.0, 500.0])], E2M1).overflow == 0.5
    assert exponents.lost([torch.tensor([448.0, 500.0])], E4M3).overflow == 0.5
    assert exponents.lost([], E4M3) == (0, 0, 0)
