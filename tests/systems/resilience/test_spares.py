"""How many spares: formulas against each other, against simulation, and what they cost."""

import math

import pytest

from parallel_lab.systems.resilience.spares import (
    cold_start,
    gain,
    idle_share,
    in_repair,
    needed,
    short_binomial,
    short_poisson,
    simulate,
    worth_it,
)


def test_poisson_by_its_terms():
    direct = 1 - math.fsum(math.exp(-4) * 4**k / math.factorial(k) for k in range(7))
    assert short_poisson(6, 4) == pytest.approx(direct, rel=1e-12)
    assert short_poisson(3, 0) == 0 and short_poisson(0, 1e-3) == pytest.approx(1 - math.exp(-1e-3))


def test_opt_175b():
    """124 hosts, two lost a day, 12 in reserve: enough for repairs of two days, not quite for four."""
    assert in_repair(124, 2 / 124, 2) == 4
    assert short_poisson(12, 4) == pytest.approx(0.0003, abs=5e-5)
    assert short_poisson(12, 8) == pytest.approx(0.06, abs=5e-3)


def test_needed_is_the_fewest():
    for mean in (0.1, 1, 4, 30):
        spares = needed(mean, 0.01)
        assert short_poisson(spares, mean) <= 0.01 < (short_poisson(spares - 1, mean) if spares else 1)
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        needed(4, 0)


def test_few_failures_are_poisson_or_binomial_alike():
    down = 0.004 / 1.004
    assert short_binomial(4, 1000, down) == pytest.approx(short_poisson(4, 1004 * down), rel=0.03)


@pytest.mark.parametrize("fixed", [False, True])
def test_the_formula_is_that_of_simulated_clusters_however_long_repairs_take(fixed):
    """Only the mean of a repair counts. A machine without a place does not fail, so slightly less is empty."""
    found = [simulate(124, 2 / 124, 2, 6, days=20_000, fixed=fixed, seed=seed) for seed in range(4)]
    assert sum(found) / 4 == pytest.approx(short_poisson(6, 4), rel=0.1)
    assert simulate(10, 0.01, 1, 50, days=100) == 0


def test_what_spares_cost_and_save():
    assert idle_share(124, 12) == pytest.approx(12 / 136)
    assert gain(cold_s=600, hot_s=60, failures_per_day=2) == pytest.approx(1080 / 86400)
    assert not worth_it(124, 12, cold_s=600, hot_s=60, failures_per_day=2)
    assert worth_it(124, 1, cold_s=1800, hot_s=60, failures_per_day=2)
    cold_start()
