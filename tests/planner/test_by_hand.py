"""A step on one page: its parts, by hand, and Megatron-Turing NLG with one fitted constant."""

import pytest

from parallel_lab.grading.rebuilt import MT_NLG
from parallel_lab.planner.by_hand import FACTS, by_hand, fitted_share

PUBLISHED = {8: 60.1, 10: 50.2, 12: 44.4}  # dp, seconds: Smith et al. 2022, section 2.4


def test_facts_are_those_that_are_read():
    assert set(MT_NLG) == set(FACTS)


def test_flops_are_those_of_narayanan_et_al():
    """Equation 3: 96 B s L h^2 (1 + s/6h + V/16Lh), all of it at the peak."""
    b, s, layers, h, vocab = (MT_NLG[key] for key in ("batch", "seq", "layers", "width", "vocab"))
    flops = 96 * b * s * layers * h**2 * (1 + s / (6 * h) + vocab / (16 * layers * h))
    at_peak = by_hand({**MT_NLG, "share": 1.0})["compute_s"]
    assert at_peak == pytest.approx(flops / (2240 * 312e12), rel=1e-12)


def test_parts_by_hand():
    facts = {**MT_NLG, "layers": 4, "pp": 2, "tp": 2, "dp": 2, "batch": 16, "microbatch": 2, "chunks": 2, "width": 1024}
    found = by_hand(facts)
    assert found["bubble_s"] == pytest.approx((found["compute_s"] + found["tensor_s"]) / (2 * 4))
    assert found["tensor_s"] == pytest.approx(2 * 3 * 2 * (2 * 16 * 2048 / 2 * 1024) / 300e9)
    assert found["data_s"] == pytest.approx(2 * (12 * 4 * 1024**2 / 2 + 51_200 * 1024) / 2 / 25e9)
    assert found["step_s"] == pytest.approx(sum(found.values()) - found["step_s"])


def test_one_constant_fitted_on_one_row_predicts_the_others_within_four_per_cent():
    share = fitted_share(MT_NLG, PUBLISHED[8])
    assert share == pytest.approx(0.4817, abs=1e-4)
    off = {dp: by_hand({**MT_NLG, "dp": dp, "share": share})["step_s"] / s - 1 for dp, s in PUBLISHED.items()}
    assert off[8] == pytest.approx(0, abs=1e-9)
    assert off[10] == pytest.approx(-0.011, abs=0.001) and off[12] == pytest.approx(-0.039, abs=0.001)


def test_a_step_that_communication_alone_fills_is_refused():
    with pytest.raises(ValueError, match=r"the step took 0\.1 s, and communication alone [\d.]+ s"):
        fitted_share(MT_NLG, 0.1)
