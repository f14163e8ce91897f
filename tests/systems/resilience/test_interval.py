"""How often to save: formulas against each other, against simulation, and against a job that is really killed."""

import math
from statistics import fmean, stdev

import pytest
import torch

from parallel_lab import launch
from parallel_lab.systems.resilience import Job, interval, killed_run
from parallel_lab.systems.resilience.interval import (
    best,
    daly,
    efficiency,
    ettr,
    mtbf_of,
    simulate,
    valley,
    wall,
    waste,
    young,
)

pytestmark = pytest.mark.usefixtures("by_value")


def test_young_is_the_least_first_order_waste_and_the_valley_is_flat():
    tau = young(2, 400)
    assert tau == 40 and waste(tau, 2, 400) == pytest.approx(2 / 40 + 40 / 800)
    for k in (0.25, 0.5, 0.99, 1.01, 2, 4):
        assert waste(k * tau, 2, 400) / waste(tau, 2, 400) == pytest.approx(valley(k)) and valley(k) > 1
    assert valley(2) == valley(0.5) == 1.25 and valley(4) == 2.125


@pytest.mark.parametrize("save", [0.001, 0.01, 0.1, 0.5, 1, 1.9, 5, 50])
def test_best_is_the_least_exact_time(save):
    tau = best(save, 1)
    assert 0 < tau <= 1
    for other in (0.9 * tau, 0.999 * tau, 1.001 * tau, 1.1 * tau):
        assert wall(1, other, save, 1, 0.3) > wall(1, tau, save, 1, 0.3)
    assert (1 - tau) == pytest.approx(math.exp(-tau - save), abs=1e-12)


@pytest.mark.parametrize(("ratio", "lost"), [(0.01, 0.0002), (0.1, 0.0047), (0.5, 0.0505), (1, 0.1417)])
def test_where_young_holds(ratio, lost):
    """What his interval costs beside the best, by C/M; Daly's costs less than a tenth of a percent up to C = M."""
    least = wall(1, best(ratio, 1), ratio, 1)
    assert wall(1, young(ratio, 1), ratio, 1) / least - 1 == pytest.approx(lost, abs=5e-5)
    assert wall(1, daly(ratio, 1), ratio, 1) / least - 1 < 1e-3


def test_daly_beyond_his_domain_is_the_mean_time_between_failures():
    assert daly(3, 1) == 1 and daly(2, 1) == 1


CASES = [(13.0, 1.0, 100.0, 5.0), (30.0, 4.0, 40.0, 20.0)]  # in the second, every third restart fails too


@pytest.mark.parametrize(("tau", "save", "mtbf", "restart"), CASES)
def test_the_exact_mean_is_that_of_simulated_runs(tau, save, mtbf, restart):
    work = 20 * tau
    found = [simulate(work, tau, save, mtbf, restart, seed=seed) for seed in range(600)]
    error = stdev(run.wall for run in found) / len(found) ** 0.5
    assert fmean(run.wall for run in found) == pytest.approx(wall(work, tau, save, mtbf, restart), abs=4 * error)
    assert all(run.useful == pytest.approx(work) and run.efficiency == run.useful / run.wall for run in found)
    failures = fmean(run.failures for run in found)
    never = work / tau * mtbf * math.expm1((tau + save) / mtbf) + failures * restart  # restarts that never fail
    assert restart < mtbf / 10 or never > wall(work, tau, save, mtbf, restart) + 4 * error


def test_failures_that_come_in_bursts_are_another_model():
    """Weibull with the same mean: with a shape of 0.5 most failures come soon after the last one."""
    tau, save, mtbf = 14.0, 1.0, 100.0
    bursts = [simulate(2000, tau, save, mtbf, shape=0.5, seed=seed).efficiency for seed in range(200)]
    error = stdev(bursts) / 200**0.5
    assert abs(fmean(bursts) - efficiency(tau, save, mtbf)) > 5 * error


def test_ettr_is_the_first_order_of_the_exact_model():
    for save, restart in ((0.1, 0.0), (0.1, 1.0)):
        tau = young(save, 1000)
        assert ettr(tau, save, 1000, restart) == pytest.approx(efficiency(tau, save, 1000, restart), abs=2e-4)
    assert ettr(10, 1, 4, 100) == 0  # past its domain
    hours = mtbf_of(128, 6.5)
    assert hours == pytest.approx(28.8, abs=0.05)


def test_llama_3():
    """A mean of 3.09 h: 90 % takes saves of seconds and restarts below ten minutes."""
    mtbf_min = 54 * 24 * 60 / 419
    assert mtbf_min / 60 == pytest.approx(3.09, abs=0.005)
    table = {w: [ettr(young(w / 60, mtbf_min), w / 60, mtbf_min, u) for u in (5, 10, 20)] for w in (10, 60)}
    assert table[10] == pytest.approx([0.932, 0.906, 0.853], abs=1e-3)
    assert table[60] == pytest.approx([0.876, 0.850, 0.799], abs=1e-3)


@pytest.mark.parametrize("every", [4, 10])
def test_a_job_that_is_really_killed_loses_what_the_simulation_says(tmp_path, every):
    """Part by part, with the failures of the same seed; and it ends where the undisturbed job ends."""
    job = Job(str(tmp_path / "killed"), steps=20, every=every, batch=8)
    parts, run = killed_run(job, save=2, mtbf=15, seed=3, ranks=1)
    simulated = simulate(20, every, 2, 15, seed=3)
    for name in ("useful", "lost", "saving", "failures"):
        assert getattr(parts, name) == pytest.approx(getattr(simulated, name), abs=1e-9)
    assert {each.why for each in run.attempts} == {"killed", ""} and run.restarts == parts.failures >= 2
    whole = launch(Job(str(tmp_path / "whole"), steps=20, every=0, batch=8), ranks=1)
    assert torch.equal(run.results[0].weights, whole[0].weights)


def test_a_save_that_dies_counts_as_saving_and_its_work_as_lost(tmp_path):
    """Failures at fixed times: the first in the middle of the first save, the second never."""
    moments = iter([5.0, 1e9])
    simulated = simulate(8, 4, 2, 1, draw=lambda: next(moments))
    assert (simulated.useful, simulated.lost, simulated.saving, simulated.failures) == (8, 4, 5, 1)


def test_numbers_that_make_no_sense():
    for call in (lambda: young(0, 1), lambda: wall(1, 0, 1, 1), lambda: interval.dice(1, 0)):
        with pytest.raises(ValueError, match="expected more than 0"):
            call()
