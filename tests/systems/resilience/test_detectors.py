"""Detectors on beats that are written down, drawn, or really sent by a process that is held up."""

import math
import random
import statistics
from itertools import pairwise

import pytest

from parallel_lab.systems.resilience import Heartbeat, PhiAccrual, curve, judge, record, simulated_arrivals

THRESHOLDS = [0.5, 1, 2, 4, 8, 16]


def heard(detector, arrivals):
    for now_s in arrivals:
        detector.beat(now_s)
    return detector


def test_a_heartbeat_suspects_after_its_timeout():
    detector = Heartbeat(2.0)
    assert detector.deadline_s == math.inf and not detector.suspects(1e9)  # who was never heard is not suspected
    heard(detector, [1.0, 2.0, 3.5])
    assert detector.deadline_s == 5.5 and detector.suspects(5.5) and not detector.suspects(5.49)


def test_phi_is_the_tail_of_the_normal_distribution_of_the_last_intervals():
    dice = random.Random(0)
    arrivals = [0.0]
    for _ in range(300):
        arrivals.append(arrivals[-1] + dice.uniform(0.9, 1.4))
    detector = heard(PhiAccrual(window=50), arrivals)
    intervals = [b - a for a, b in pairwise(arrivals)][-50:]
    normal = statistics.NormalDist(statistics.fmean(intervals), statistics.pstdev(intervals))
    assert detector.distribution.mean == pytest.approx(normal.mean, rel=1e-9)
    assert detector.distribution.stdev == pytest.approx(normal.stdev, rel=1e-9)
    for silent_s in (0.5, normal.mean, 1.5, 1.9):
        assert detector.phi(arrivals[-1] + silent_s) == pytest.approx(-math.log10(1 - normal.cdf(silent_s)), rel=1e-6)
    assert detector.phi(arrivals[-1] + normal.mean) == pytest.approx(math.log10(2))


@pytest.mark.parametrize("threshold", [*THRESHOLDS, 100, 250])
def test_the_deadline_is_where_phi_reaches_the_threshold(threshold):
    """At 250 the tail is beyond what `erfc` can say, and its expansion takes over."""
    detector = heard(PhiAccrual(threshold), simulated_arrivals(200, seed=1))
    assert detector.phi(detector.deadline_s) == pytest.approx(threshold, rel=2e-3)
    assert detector.suspects(detector.deadline_s) and not detector.suspects(detector.deadline_s - 1e-3)


def test_a_process_that_beats_like_a_clock_is_not_suspected_for_a_hiccup():
    detector = heard(PhiAccrual(8, least_std_s=0.1), range(20))
    assert detector.deadline_s == pytest.approx(19 + 1 + 0.1 * 5.612, abs=1e-3)  # P(z > 5.612) = 1e-8
    assert PhiAccrual().phi(5.0) == 0 and PhiAccrual().deadline_s == math.inf


@pytest.mark.parametrize("threshold", [1, 2])
def test_normal_intervals_are_taken_for_a_death_once_in_ten_to_the_phi(threshold):
    quality = judge(PhiAccrual(threshold), simulated_arrivals(20_000, pauses=0, seed=2))
    expected = 20_000 / 10**threshold
    assert quality.false_alarms == pytest.approx(expected, abs=5 * expected**0.5)


def test_with_pauses_it_is_wrong_more_often():
    """One beat in a hundred is late by two seconds on average: the tail is not that of a normal distribution."""
    quality = judge(PhiAccrual(8), simulated_arrivals(20_000, seed=3))
    assert quality.false_alarms > 50  # 1e-8 of 20,000 beats would be none
    assert quality.per_hour == pytest.approx(quality.false_alarms / quality.watched_s * 3600)


@pytest.mark.parametrize(("make", "settings"), [(Heartbeat, [1.1, 1.5, 2, 4, 8]), (PhiAccrual, THRESHOLDS)])
def test_a_detector_trades_false_alarms_for_time(make, settings):
    found = [quality for _, quality in curve(make, settings, simulated_arrivals(5000, seed=4))]
    alarms, times = [each.false_alarms for each in found], [each.detection_s for each in found]
    assert alarms == sorted(alarms, reverse=True) and alarms[0] > alarms[-1]
    assert times == sorted(times) and all(each.worst_s >= each.detection_s - 1e-9 for each in found)


def test_real_processes_that_are_stopped_look_dead():
    """A stop of 0.3 s is a false alarm for who waits for 0.25 s, and none for who waits for an hour."""
    heard_ = record(60, interval_s=0.003, stops={20: 0.3, 40: 0.3}, busy={30: 0.05})
    gaps = [b - a for a, b in pairwise(heard_.arrivals)]
    assert gaps[20] >= 0.3 and gaps[40] >= 0.3 and len(heard_.stops) == 2
    assert judge(Heartbeat(0.25), heard_.arrivals).false_alarms >= 2
    assert judge(Heartbeat(3600), heard_.arrivals).false_alarms == 0
    for detector in (Heartbeat(0.25), PhiAccrual(8)):
        heard(detector, heard_.arrivals)
        assert heard_.killed_s < detector.deadline_s < math.inf or detector.suspects(heard_.killed_s)


@pytest.mark.parametrize("make", [lambda: Heartbeat(0), lambda: PhiAccrual(0), lambda: PhiAccrual(window=1)])
def test_settings_that_make_no_sense(make):
    with pytest.raises(ValueError, match="expected"):
        make()
    with pytest.raises(ValueError, match="too few"):
        judge(Heartbeat(1), [1, 2, 3])
