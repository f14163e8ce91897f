"""The tests between two models against scipy, closed forms and, for their error rates, many draws with fixed seeds."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from parallel_lab.systems.evaluation import bleu, significance
from parallel_lab.systems.evaluation.significance import (
    clustered_error,
    interval,
    mcnemar,
    paired_bootstrap,
    paired_difference,
    permutation,
    standard_error,
    wilson,
)


def _answers(seed, samples=400, better=0.0):
    """Right or wrong of two models that find the same samples hard; the second is `better` at a share of them."""
    dice = np.random.default_rng(seed)
    hard = dice.random(samples)
    first, second = (dice.random((2, samples)) * 0.3 + 0.7 * hard[None] < 0.6).astype(float)
    return first, np.maximum(second, dice.random(samples) < better)


def test_errors_and_intervals_are_scipys():
    values = np.random.default_rng(0).normal(size=50)
    assert standard_error(values) == pytest.approx(stats.sem(values), abs=1e-12)
    assert interval(values)[1:] == pytest.approx(stats.norm.interval(0.95, values.mean(), stats.sem(values)), abs=1e-9)
    for right, samples in ((0, 10), (3, 10), (10, 10), (710, 1000)):
        theirs = stats.binomtest(right, samples).proportion_ci(0.95, "wilson")
        assert wilson(right, samples)[1:] == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    share = np.r_[np.ones(710), np.zeros(290)]
    assert standard_error(share) == pytest.approx(math.sqrt(0.71 * 0.29 / 1000), rel=1e-3)


def test_mcnemar_is_the_binomial_test_of_what_only_one_got_right():
    for seed in range(20):
        first, second = _answers(seed, 60)
        one, two = int((first > second).sum()), int((second > first).sum())
        assert mcnemar(first, second) == pytest.approx(stats.binomtest(one, one + two).pvalue, abs=1e-9)
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1.0


def test_a_pair_is_surer_than_two_scores():
    first, second = _answers(1)
    apart = math.hypot(standard_error(first), standard_error(second))
    found = paired_difference(first, second)
    theirs = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert found.error < 0.8 * apart
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)  # normal here, Student there


def test_answers_to_one_text_are_less_sure_than_as_many_texts():
    dice = np.random.default_rng(0)
    texts = np.repeat(np.arange(40), 10)
    values = dice.normal(size=40)[texts] + 0.1 * dice.normal(size=400)
    assert clustered_error(values, texts) > 2.5 * standard_error(values)
    usual = standard_error(values) * math.sqrt(399 / 400)
    assert clustered_error(values, np.arange(400)) == pytest.approx(usual, abs=1e-12)
    means = values.reshape(40, 10).mean(1)
    assert clustered_error(values, texts) == pytest.approx(standard_error(means) * math.sqrt(39 / 40), abs=1e-12)


def test_a_bootstrap_has_the_spread_of_the_normal_interval_and_its_seed():
    first, second = _answers(2, better=0.2)
    drawn, normal = paired_bootstrap(first, second, draws=4000), paired_difference(first, second)
    assert drawn.value == pytest.approx(normal.value, abs=1e-12)
    assert (drawn.low, drawn.high) == pytest.approx((normal.low, normal.high), abs=0.15 * (normal.high - normal.low))
    assert paired_bootstrap(first, second, seed=3) == paired_bootstrap(first, second, seed=3)
    assert paired_bootstrap(first, second, seed=3) != paired_bootstrap(first, second, seed=4)


def test_no_difference_is_found_in_about_one_of_twenty_and_a_real_one_mostly():
    """200 pairs of equal models: each rate lies within four standard errors of what it says, or below."""
    pairs = [_answers(seed, 150) for seed in range(200)]
    bound = 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)
    rates = [
        np.mean([permutation(*pair, draws=200, seed=seed).p <= 0.05 for seed, pair in enumerate(pairs)]),
        np.mean([mcnemar(*pair) <= 0.05 for pair in pairs]),
        np.mean([not low <= 0 <= high for _, low, high in (paired_bootstrap(*p, draws=200) for p in pairs)]),
    ]
    assert all(rate <= bound for rate in rates), rates
    found = [permutation(*_answers(seed, 150, better=0.4), draws=200).p for seed in range(20)]
    assert sum(p <= 0.05 for p in found) >= 18 and min(found) == pytest.approx(1 / 201)


def test_a_corpus_score_takes_rows_of_statistics():
    texts = [f"the cat number {k} sat on the mat near the door" for k in range(30)]
    worse = [text.replace("mat near", "rug by") for text in texts]
    rows = [bleu.statistics(h, [[text] for text in texts]).numpy() for h in (worse, texts)]

    def score(sums):
        return bleu.score(torch.from_numpy(sums))

    found = paired_bootstrap(*rows, score, draws=50)
    assert found.value == pytest.approx(100 - score(rows[0].sum(0))) and found.low > 0
    assert permutation(*rows, score, draws=50).p == pytest.approx(1 / 51)


def test_what_cannot_be_compared_is_refused():
    for said, call in {
        "same samples": lambda: paired_difference([1, 2], [1, 2, 3]),
        "no spread": lambda: standard_error([1.0]),
        "one cluster alone": lambda: clustered_error([1, 2], ["a", "a"]),
        "2 values and 1 clusters": lambda: clustered_error([1, 2], ["a"]),
        "0 <= right <= samples": lambda: wilson(3, 2),
        "such as 0.95": lambda: interval([1, 2], confidence=95),
    }.items():
        with pytest.raises(ValueError, match=said):
            call()
    assert significance.Score
