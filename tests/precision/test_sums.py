"""Sums in the order of a collective are what real ranks come to, bit by bit; every order keeps to its bound."""

import math

import pytest
import torch
import torch.distributed as dist

from parallel_lab import collectives, launch
from parallel_lab.precision import formulas, sums
from parallel_lab.precision.sums import ORDERS, relative_error, reproducible_all_reduce, reproducible_sum, row_split

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SIZES = (1, 2, 3, 4)


def numbers(n, elements=7, dtype=torch.float32):
    made = torch.randn(n, elements, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    return (made * torch.logspace(-3, 3, elements, dtype=torch.float64)).to(dtype)


def reduced():
    """By dtype and algorithm, what this rank's all-reduce comes to, in every sub-group of the first ranks."""
    found = {}
    for n in SIZES[: dist.get_world_size()]:
        group = dist.new_group(range(n))
        if dist.get_rank() < n:
            for dtype in DTYPES:
                for algorithm in ("ring", "tree"):
                    mine = numbers(n, dtype=dtype)[dist.get_rank()].clone()
                    found[n, dtype, algorithm] = collectives.all_reduce(mine, group, algorithm)
                same = numbers(n, dtype=dtype)[dist.get_rank()].clone()
                reproducible_all_reduce(same, group=group)
                found[n, dtype, "same"] = same
    return found


def test_orders_are_those_of_real_ranks():
    for rank, found in enumerate(launch(reduced, ranks=4).results):
        for (n, dtype, algorithm), total in found.items():
            assert rank < n
            xs = numbers(n, dtype=dtype)
            right = reproducible_sum(list(xs)) if algorithm == "same" else ORDERS[algorithm](xs)
            assert torch.equal(total, right), (n, dtype, algorithm)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_errors_stay_below_their_bounds(order, dtype):
    """Also of numbers of one sign, whose errors add up most. Kahan's bound is of first order: 10 % above it."""
    for n in (2, 3, 16, 60):
        for xs in (numbers(n, 40, dtype), torch.rand(n, 40, generator=torch.Generator().manual_seed(1)).to(dtype)):
            error = relative_error(ORDERS[order](xs), xs).max().item()
            assert error <= 1.1 * formulas.sum_bound(order, n, dtype), (n, error)


def test_bounds_and_where_there_is_none():
    u = 2.0**-8
    assert formulas.height("ring", 16) == 15 and formulas.height("tree", 9) == 4
    assert formulas.sum_bound("tree", 16, torch.bfloat16) == 4 * u / (1 - 4 * u)
    assert formulas.sum_bound("ring", 300, torch.bfloat16) == math.inf
    assert formulas.sum_bound("kahan", 10**6, torch.float32) == 2.0**-23
    with pytest.raises(ValueError, match="not by a height"):
        formulas.height("kahan", 4)


def test_a_sum_of_ones_stalls_where_the_formula_says():
    """One by one bfloat16 stops at 256 and float16 at 2,048; as a tree both are exact, and Kahan is."""
    for dtype, stop in ((torch.bfloat16, 256), (torch.float16, 2048)):
        ones = torch.ones(4096, 1, dtype=dtype)
        assert formulas.stalls_at(dtype, 1.0) == stop == ORDERS["left to right"](ones).item()
        assert ORDERS["pairwise"](ones).item() == 4096 == ORDERS["kahan"](ones).item()


def test_a_reproducible_sum_is_the_same_in_any_order_and_right():
    generator = torch.Generator().manual_seed(0)
    for dtype in (*DTYPES, torch.float64):
        xs = numbers(50, 60, dtype)
        xs[7] = -xs[3] * 3  # numbers that cancel
        right = reproducible_sum(list(xs))
        differ = set()
        for _ in range(10):
            shuffled = xs[torch.randperm(50, generator=generator)]
            assert torch.equal(reproducible_sum(list(shuffled)), right)
            differ.add(tuple(ORDERS["left to right"](shuffled).tolist()))
        assert len(differ) > 1, "no order mattered, so nothing was shown"
        exact = torch.tensor([math.fsum(column) for column in xs.double().T.tolist()], dtype=torch.float64)
        off = (right.double() - exact).abs() / xs.double().abs().amax(0)
        assert (off <= 50 * torch.finfo(dtype).eps / 2 if dtype is not torch.float64 else off < 1e-14).all()


def test_a_reproducible_sum_of_what_is_not_finite_or_zero():
    xs = [torch.tensor([0.0, 1.0, torch.inf, torch.nan, 1e-45]), torch.tensor([0.0, -1.0, 1.0, 1.0, 1e-45])]
    total = reproducible_sum(xs)
    assert total[:2].tolist() == [0, 0] and total[2:4].isnan().all() and total[4] == 2 * xs[0][4]


def test_what_a_reproducible_sum_sends():
    """3 times the bytes of a float32 all-reduce: the largest in 4 bytes, whole numbers in 8."""

    def run():
        mine = torch.ones(90)
        reproducible_all_reduce(mine)
        return mine.sum().item()

    run = launch(run, ranks=3)
    assert run.results == [270.0] * 3
    assert [run.trace.bytes_sent(rank) for rank in range(3)] == [2 * 2 / 3 * 90 * (4 + 8)] * 3


def test_not_the_split_but_the_type_of_its_sum():
    """A column split changes no bit. A row split in float32 is as exact as one product; in bfloat16 it is the sum."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(32, 512, generator=generator), torch.randn(512, 48, generator=generator)
    exact = x.double() @ weight.double()

    def off(product):
        return float((product.double() - exact).norm() / exact.norm())

    columns = torch.cat([x.double() @ part for part in weight.double().tensor_split(3, 1)], 1)
    assert torch.equal(columns, exact) or off(columns) < 1e-15
    for ways in (1, 2, 3, 16):
        assert off(row_split(x, weight, ways, compute=torch.float32, reduction=torch.float32)) < 5e-7
    whole = off(row_split(x, weight, 1, compute=torch.bfloat16, reduction=torch.bfloat16))
    narrow = off(row_split(x, weight, 16, compute=torch.bfloat16, reduction=torch.bfloat16))
    wide = off(row_split(x, weight, 16, compute=torch.bfloat16, reduction=torch.float32))
    assert narrow > 1.5 * whole and wide < 1.2 * whole, (whole, narrow, wide)


def test_the_plan_need_not_be_that_of_a_power_of_two():
    xs = numbers(5, 11)
    for n in range(1, 6):
        same = sums.over_ranks(numbers(n, 11), collectives.plan_for("all_reduce", "ring", n))
        assert torch.equal(same, sums.ring(numbers(n, 11)))
    for algorithm in ("halving_doubling", "recursive_doubling", "star", "full_mesh"):
        total = sums.over_ranks(xs, collectives.plan_for("all_reduce", algorithm, 5))
        torch.testing.assert_close(total, xs.sum(0), rtol=1e-5, atol=1e-4)
