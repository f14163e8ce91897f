"""The closed forms of waiting, staleness and seldom exchange, against dice, schedules and iterations."""

from random import Random
from statistics import fmean

import pytest

from parallel_lab.synchronization import Asynchronous, Partial, Synchronous
from parallel_lab.synchronization.formulas import (
    asynchronous_gain,
    computing,
    expected_place,
    largest_rate,
)
from parallel_lab.synchronization.virtual import schedule, slow_worker


@pytest.mark.parametrize("place", [1, 3, 4])
def test_the_kth_of_four_exponential_times(place):
    dice = Random(1)
    times = [sorted(dice.expovariate(1) for _ in range(4))[place - 1] for _ in range(20_000)]
    assert fmean(times) == pytest.approx(expected_place(4, place), rel=0.02)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_gain_of_asynchrony_is_that_of_the_schedules(factor):
    seconds = [
        schedule(rule, slow_worker(4, factor), 4, updates=1200).seconds for rule in (Synchronous(), Asynchronous())
    ]
    assert seconds[0] / seconds[1] == pytest.approx(asynchronous_gain(4, factor), rel=0.01)


@pytest.mark.parametrize("staleness", [0, 1, 2, 5, 9])
def test_the_largest_rate_divides_what_converges_from_what_does_not(staleness):
    def ends_at(rate):
        w = [1.0] * (staleness + 1)
        for _ in range(4000):
            w.append(w[-1] - rate * w[-1 - staleness])
        return abs(w[-1])

    assert ends_at(0.95 * largest_rate(staleness)) < 1e-3 < 1e3 < ends_at(1.05 * largest_rate(staleness))


def test_seldom_exchange_costs_less_and_hides():
    assert computing(1.0, 1.0) == 0.5 and computing(1.0, 1.0, every=9) == 0.9
    assert computing(1.0, 1.0, every=9, hidden_s=2.0) == 1.0


def test_used_gradients_are_counted_where_dropped_ones_are_not():
    everything = schedule(Partial(3), slow_worker(4), 4, updates=240)
    used = schedule(Partial(3), slow_worker(4), 4, updates=240, count_dropped=False)
    assert sum(not update.dropped for update in everything) == 216 and everything.seconds == 72
    assert sum(not update.dropped for update in used) == 240 and used.seconds == 80
    same = schedule(Synchronous(), slow_worker(4), 4, updates=240, count_dropped=False)
    assert same.updates == schedule(Synchronous(), slow_worker(4), 4, updates=240).updates
