"""Published layouts in the simulator: what goes in is the source's, and how far off what comes out is."""

from dataclasses import replace

import pytest

from parallel_lab.hybrid import published_experts
from parallel_lab.hybrid.machines import NVLINK3, Machine
from parallel_lab.hybrid.published import between, fitted, replay, runs, step_plan
from parallel_lab.network import Link, price
from parallel_lab.plan import check_plan

PRINTED = (1.7, 3.6, 7.5, 18.4, 39.1, 76.1, 145.6, 310.1, 529.6, 1008.0)  # parameters in billions, table 1


@pytest.fixture(scope="module")
def megatron():
    return runs("megatron")


def test_rows_are_those_of_the_table(megatron):
    assert [round(run.shape.parameters / 1e9, 1) for run in megatron] == pytest.approx(PRINTED, abs=0.051)
    assert [run.world for run in megatron] == [32, 64, 128, 256, 512, 1024, 1536, 1920, 2520, 3072]
    assert [run.m for run in megatron] == [1, 1, 1, 4, 12, 28, 48, 144, 280, 512]
    for run in megatron:
        assert sum(run.layers) == run.shape.layers and len(set(run.layers)) == 1
        batch, h, layers = run.batch, run.shape.width, run.shape.layers
        equation_3 = 96 * batch * 2048 * layers * h**2 * (1 + 2048 / (6 * h) + 51_200 / (16 * layers * h))
        assert run.step_flops == pytest.approx(equation_3, rel=1e-12)


def test_rows_of_llama_fill_their_world():
    small, large, long = runs("llama3")
    assert [run.world for run in (small, large, long)] == [8192, 16_384, 16_384]
    assert all(run.batch * run.shape.seq == 2**24 for run in (small, large, long))
    assert small.layers == [0] + [1] * 126 + [0]
    assert (small.m, large.m, long.m) == (32, 16, 16) and small.shape.parameters == pytest.approx(405e9, rel=0.003)


@pytest.mark.parametrize(("size", "measured_s"), [(2**20, 92.8e-6), (2**26, 579.9e-6), (2**30, 8193e-6)])
def test_link_has_the_time_of_measured_all_reduces(size, measured_s):
    assert price("all_reduce", 8, size).seconds(NVLINK3) == pytest.approx(measured_s, rel=0.05)


def test_a_step_is_a_possible_plan_and_the_fitted_row_is_met(megatron):
    run = megatron[5]
    check_plan(step_plan(run))
    again = replay(run, fitted(run))
    assert again.off == pytest.approx(0, abs=1e-6)
    assert again.trace.simulated and 0.04 < again.shares["idle"] < 0.06 and 0 < again.shares["gradients"] < 0.03


def test_bubble_is_the_closed_form_where_nothing_travels(megatron):
    free = Machine(312e12, Link(), Link())
    run = replace(megatron[6], machine=free, shape=replace(megatron[6].shape, vocab=1))
    expected = (run.pp - 1) / (run.chunks * run.m + run.pp - 1)
    assert replay(run, 0.5).shares["idle"] == pytest.approx(expected, rel=1e-3)


def test_one_share_for_all_widths_falls_short_more_and_more(megatron):
    share = fitted(megatron[0])
    off = [replay(run, share).off for run in megatron[:8]]
    assert share == pytest.approx(0.439, abs=0.001)
    assert off == pytest.approx([0, -0.048, -0.124, -0.131, -0.212, -0.177, -0.233, -0.243], abs=0.002)


def test_a_share_that_rises_with_the_width_predicts_the_rows_between_two(megatron):
    share_of = between(megatron[0], megatron[7])
    off = [replay(run, share_of(run)).off for run in megatron[:8]]
    assert off == pytest.approx([0, 0.027, -0.003, 0.038, -0.027, 0.040, -0.011, 0], abs=0.002)


def test_one_row_predicts_nineteen_other_layouts_of_one_model():
    sweep = runs("sweep")
    share = fitted(sweep[0])
    off = [replay(run, share).off for run in sweep]
    assert len(off) == 20 and max(map(abs, off)) < 0.07
    assert sum(map(abs, off)) / 19 == pytest.approx(0.036, abs=0.002)


def test_llama_loses_with_half_the_microbatches_what_was_measured():
    small, large, long = runs("llama3")
    share = fitted(small)
    assert replay(large, share).off == pytest.approx(-0.013, abs=0.002)  # simulated 395, measured 400
    assert replay(long, share).off == pytest.approx(0.095, abs=0.003)  # what 131,072 tokens cost besides is not here


def test_exchanges_of_experts_that_are_not_hidden_cost_a_quarter():
    share = published_experts.fitted()
    hidden, waited = (published_experts.replay(share, hidden=each) for each in (True, False))
    assert hidden.gpu_hours == pytest.approx(published_experts.GPU_HOURS, rel=1e-5)
    assert waited.gpu_hours / hidden.gpu_hours == pytest.approx(1.286, abs=0.005)
    assert hidden.exchange_ratio == pytest.approx(0.44, abs=0.01)


def test_an_unknown_table_is_said():
    with pytest.raises(ValueError, match="there are megatron, sweep and llama3"):
        runs("gpt4")
