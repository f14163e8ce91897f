"""Priorities against SimPy, with and without preemption; whom it stops, and what that costs."""

import math
from dataclasses import replace

import pytest
import simpy

from parallel_lab.systems.scheduling import FIFO, Job, Priorities, measures, priorities, simulate


def urgent(jobs, gpus=None):
    """The jobs with priorities 0 to 2 in turn, and with the same number of GPUs each where one is given."""
    return [replace(job, priority=(7 * n) % 3, gpus=gpus or job.gpus) for n, job in enumerate(jobs)]


def with_simpy(jobs, gpus, preempts):
    """When each job of one GPU ends, in SimPy; who is stopped goes on from where he was, at his old place."""
    world, ends = simpy.Environment(), {}
    free = (simpy.PreemptiveResource if preempts else simpy.PriorityResource)(world, gpus)

    def run(job):
        yield world.timeout(job.arrival_s)
        left = job.duration_s
        while left:
            with free.request(priority=(-job.priority, job.arrival_s)) as request:
                yield request
                began = world.now
                try:
                    yield world.timeout(left)
                    left = 0
                except simpy.Interrupt:
                    left -= world.now - began
        ends[job.name] = world.now

    for job in jobs:
        world.process(run(job))
    world.run()
    return ends


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gpus", "preempts"), [(1, True), (1, False), (4, False)])
def test_jobs_of_one_gpu_end_as_in_simpy(mixed, seed, gpus, preempts):
    jobs = [
        replace(job, arrival_s=job.arrival_s * 8 / gpus + n / 1024) for n, job in enumerate(urgent(mixed(seed, 60), 1))
    ]
    ours = simulate(jobs, gpus, Priorities(preempts=preempts))
    assert ours.ends == pytest.approx(with_simpy(jobs, gpus, preempts))


def test_equal_priorities_are_the_order_of_arrival(mixed):
    for policy in (Priorities(), Priorities(preempts=True)):
        assert simulate(mixed(0), 8, policy).ends == simulate(mixed(0), 8, FIFO).ends


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("victims", [priorities.youngest, priorities.fewest], ids=lambda rule: rule.__name__)
def test_the_most_urgent_do_not_notice_the_others(mixed, seed, victims):
    """With preemption jobs of the highest priority run as if they were alone."""
    jobs = urgent(mixed(seed))
    top = [job for job in jobs if job.priority == 2]
    with_all, alone = simulate(jobs, 8, Priorities(preempts=True, victims=victims)), simulate(top, 8, Priorities())
    assert {name: with_all.ends[name] for name in alone.ends} == alone.ends


def test_whom_it_stops():
    """On 8 GPUs run 4, 2 and 2, the last two later; 3 are wanted."""
    jobs = [
        Job("large", 0, 4, 100),
        Job("old", 1, 2, 100),
        Job("young", 2, 2, 100),
        Job("urgent", 10, 3, 5, priority=1),
    ]
    stopped = {}
    for victims in (priorities.youngest, priorities.fewest):
        runs = simulate(jobs, 8, Priorities(preempts=True, victims=victims)).runs
        stopped[victims.__name__] = {run.job.name for run in runs if run.end_s == 10}
    assert stopped == {"youngest": {"young", "old"}, "fewest": {"large"}}


def test_nobody_is_stopped_in_vain():
    """The two jobs of less priority are not enough; and whoever is not needed goes on."""
    jobs = [Job("equal", 0, 4, 9, priority=1), Job("low", 0, 4, 9), Job("wide", 1, 8, 9, priority=1)]
    assert len(simulate(jobs, 8, Priorities(preempts=True)).runs) == 3
    jobs = [Job("large", 0, 6, 9), Job("small", 1, 1, 9), Job("urgent", 2, 6, 9, priority=1)]
    runs = simulate(jobs, 8, Priorities(preempts=True)).runs
    assert [run.job.name for run in runs if run.end_s == 2] == ["large"], "the youngest alone is too small"


def test_who_is_spared_is_the_most_urgent_of_those_who_could_be_stopped():
    """On 8 GPUs 6 are wanted: of the two jobs of 2 one may go on, and it is not the one of least priority."""
    jobs = [Job(name, 0, gpus, 9, priority=urgency) for urgency, (name, gpus) in enumerate([("a", 2), ("b", 2)])]
    jobs += [Job("large", 0, 4, 9, priority=1), Job("urgent", 2, 6, 9, priority=2)]
    runs = simulate(jobs, 8, Priorities(preempts=True, victims=lambda one: (one.job.priority, one.job.name))).runs
    assert {run.job.name for run in runs if run.end_s == 2} == {"a", "large"}


@pytest.mark.parametrize(("checkpoint_s", "again_s"), [(0.0, 0.0), (4.0, 2.0), (7.0, 3.0), (math.inf, 10.0)])
def test_what_a_stop_costs(checkpoint_s, again_s):
    """A job is stopped after 10 s of work; what follows its last checkpoint is done again, and a restart takes 3 s."""
    jobs = [Job("low", 0, 2, 20), Job("urgent", 10, 2, 5, priority=1)]
    schedule = simulate(jobs, 2, Priorities(preempts=True), overhead_s=3.0, checkpoint_s=checkpoint_s)
    assert schedule.ends == {"urgent": 15.0, "low": 15 + 3 + 10 + again_s}
    assert priorities.wasted_gpu_s(schedule) == 2 * (3 + again_s)


def test_a_job_of_low_priority_starves_without_aging():
    """An urgent job comes every 10 s and takes 10 s; without aging the other one waits for the last of them."""
    jobs = [Job("low", 1, 1, 5), *(Job(f"u{n}", 10.0 * n, 1, 10, priority=1) for n in range(50))]
    assert simulate(jobs, 1, Priorities()).ends["low"] == 505
    assert simulate(jobs, 1, Priorities(age_s=100)).ends["low"] == 115  # at 110 s it is 109 s old
    waits = measures.wait_s(simulate(jobs, 1, Priorities()))
    means = priorities.by_priority(waits, simulate(jobs, 1, Priorities()))
    assert means == {1: 0.0, 0: 499.0}
