"""Closed forms of queues: against each other, against a sum over states, and against the simulated cluster."""

import math
import random
from statistics import fmean, stdev

import pytest

from parallel_lab.systems.scheduling import FIFO, SJF, Job, measures, simulate
from parallel_lab.systems.scheduling.queues import (
    erlang_b,
    erlang_c,
    mean_jct_s,
    mean_line,
    mean_wait_s,
    poisson_jobs,
    pollaczek_khinchine_s,
)


def test_one_server_is_the_formula_that_everybody_knows():
    rate, mean_s = 0.8, 1.0
    assert erlang_c(1, 0.8) == pytest.approx(0.8)
    assert mean_wait_s(1, rate, mean_s) == pytest.approx(0.8 / 0.2)
    assert mean_jct_s(1, rate, mean_s) == pytest.approx(1 / (1 - 0.8))
    assert pollaczek_khinchine_s(rate, mean_s, 2.0) == pytest.approx(4)  # exponential: E[S^2] = 2 mean^2
    assert pollaczek_khinchine_s(rate, mean_s, 1.0) == pytest.approx(2)  # always the same duration: half of it


@pytest.mark.parametrize(("servers", "load"), [(1, 0.3), (2, 1.5), (8, 7.2), (64, 60.0)])
def test_erlang_is_the_sum_over_states(servers, load):
    """In M/M/k the chance of jobs is load^jobs / jobs! up to k of them, and falls by load/k for each further one."""
    small = [load**n / math.factorial(n) for n in range(servers)]
    last = load**servers / math.factorial(servers)
    tail = last / (1 - load / servers)
    assert erlang_b(servers, load) == pytest.approx(last / (sum(small) + last))
    assert erlang_c(servers, load) == pytest.approx(tail / (sum(small) + tail))
    line = tail * (load / servers) / (1 - load / servers) / (sum(small) + tail)
    assert mean_line(servers, load, 1.0) == pytest.approx(line)


def test_beyond_its_domain_a_queue_has_no_length():
    for load in (0.0, 4.0, 5.0):
        with pytest.raises(ValueError, match="0 < load < GPUs"):
            erlang_c(4, load)
    with pytest.raises(ValueError, match="only below 1"):
        pollaczek_khinchine_s(1.0, 1.0, 1.0)


def test_twice_the_cluster_at_the_same_utilization_waits_less_than_half():
    """Why one large cluster beats two small ones."""
    assert mean_wait_s(8, 6.4, 1.0) < mean_wait_s(4, 3.2, 1.0) / 2


def over_closed_form(servers, rho, seeds, extra=0):
    """Mean completion times over the closed form at the rate and the mean that were drawn, a run for each seed."""
    found = []
    for seed in seeds:
        jobs = poisson_jobs(8000, rate=rho * servers, mean_s=1.0, seed=seed)
        rate, mean_s = len(jobs) / jobs[-1].arrival_s, fmean(job.duration_s for job in jobs)
        times_s = measures.jct_s(simulate(jobs, servers + extra, FIFO))
        found.append(fmean(times_s.values()) / mean_jct_s(servers, rate, mean_s))
    return found


@pytest.mark.parametrize(("servers", "rho"), [(1, 0.6), (4, 0.7), (16, 0.8)])
def test_the_simulated_cluster_is_the_closed_form(servers, rho):
    """Within 4 standard errors of 6 seeds and within 3 %; with one GPU more than the formula it is outside."""
    means = over_closed_form(servers, rho, range(6))
    assert abs(fmean(means) - 1) < min(0.03, 4 * stdev(means) / math.sqrt(6))
    assert fmean(over_closed_form(servers, rho, range(2), extra=1)) < 0.97


def test_durations_with_a_tail_wait_longer_and_the_shortest_first_waits_less():
    """One GPU, the same load: 1 of 50 jobs takes 25 times as long as the others."""
    dice, now, jobs = random.Random(1), 0.0, []
    for number in range(12_000):
        now += dice.expovariate(0.5)
        jobs.append(Job(str(number), now, 1, 25.0 if dice.random() < 0.02 else 1.0))
    mean_s, moment = fmean(job.duration_s for job in jobs), fmean(job.duration_s**2 for job in jobs)
    waits_s = fmean(measures.wait_s(simulate(jobs, 1, FIFO)).values())
    assert waits_s == pytest.approx(pollaczek_khinchine_s(0.5, mean_s, moment), rel=0.15)
    assert waits_s > 3 * pollaczek_khinchine_s(0.5, mean_s, mean_s**2)
    assert fmean(measures.wait_s(simulate(jobs, 1, SJF)).values()) < 0.7 * waits_s
