"""The simulated cluster against SimPy, against a loop that looks at every second, and against itself."""

import math
from dataclasses import replace

import pytest
import simpy

from parallel_lab.systems.scheduling import (
    FIFO,
    SJF,
    SKIPPING,
    SRSF,
    SRTF,
    Conservative,
    Deadlock,
    Decision,
    Easy,
    Elastic,
    FairShares,
    Job,
    Levels,
    OneByOne,
    Policy,
    Priorities,
    Quotas,
    amdahl,
    idle_in_gangs,
    measures,
    simulate,
)
from parallel_lab.systems.scheduling.orders import STRICT_SJF, Preemptive, by_limit, remaining, service
from parallel_lab.systems.scheduling.priorities import fewest

HALVES = {"a": 4, "b": 4}
STRICT = [  # a job that does not fit, or a promise, or a quota, holds up others
    FIFO,
    STRICT_SJF,
    Easy(),
    Conservative(),
    Priorities(),
    Priorities(preempts=True, name="priorities, preempting"),
    Priorities(preempts=True, victims=fewest, age_s=20.0, name="priorities, aging"),
    Quotas(HALVES, borrows=False, name="quotas, hard"),
]
CONSERVING = [
    SKIPPING,
    SJF,
    SRTF,
    SRSF,
    Levels((20.0, 200.0)),
    Elastic(),
    Quotas(HALVES, reclaims=False, name="quotas, borrowing"),
    Quotas(HALVES, name="quotas, reclaiming"),
    FairShares(),
    FairShares({"a": 2.0}, preempts=True, name="fair shares, preempting"),
]
by_policy = pytest.mark.parametrize("policy", STRICT + CONSERVING, ids=lambda policy: policy.name)


@pytest.fixture
def owned(mixed):
    """As `mixed`, of two teams and with priorities 0 to 2; none is larger than a team's quota."""

    def make(seed: int, policy: Policy) -> list[Job]:
        jobs = enumerate(mixed(seed, largest=4 if isinstance(policy, Quotas) else 8))
        return [replace(job, user="aab"[n % 3], priority=7 * n % 3) for n, job in jobs]

    return make


class WhoFits(simpy.Container):
    """A container whose line goes on behind a request that is too large."""

    def _do_get(self, event):
        super()._do_get(event)
        return True


def with_simpy(jobs, gpus, container=simpy.Container):
    """When each job ends if the GPUs are a container of SimPy."""
    world, ends = simpy.Environment(), {}
    free = container(world, gpus, gpus)

    def run(job):
        yield world.timeout(job.arrival_s)
        yield free.get(job.gpus)
        yield world.timeout(job.duration_s)
        ends[job.name] = world.now
        yield free.put(job.gpus)

    for job in jobs:
        world.process(run(job))
    world.run()
    return ends


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_arrival_is_that_of_simpy(mixed, seed):
    jobs = mixed(seed)
    assert simulate(jobs, 8, FIFO).ends == with_simpy(jobs, 8)


@pytest.mark.parametrize("seed", range(5))
def test_skipping_is_that_of_simpy_where_the_line_goes_on(mixed, seed):
    """Moments at which two things happen are one event here and two in SimPy: no two happen at once in these jobs."""
    jobs = [
        Job(job.name, job.arrival_s + number * 1e-3, job.gpus, job.duration_s + number * 1e-5)
        for number, job in enumerate(mixed(seed))
    ]
    ours, theirs = simulate(jobs, 8, SKIPPING).ends, with_simpy(jobs, 8, WhoFits)
    assert ours == pytest.approx(theirs) and ours != pytest.approx(simulate(jobs, 8, FIFO).ends)


def with_resource(jobs, key):
    """When each job ends on one GPU that takes the least of `key` next."""
    world, ends = simpy.Environment(), {}
    gpu = simpy.PriorityResource(world, 1)

    def run(job):
        yield world.timeout(job.arrival_s)
        with gpu.request(priority=key(job)) as turn:
            yield turn
            yield world.timeout(job.duration_s)
            ends[job.name] = world.now

    for job in jobs:
        world.process(run(job))
    world.run()
    return ends


def test_the_shortest_first_on_one_gpu_is_that_of_simpy(mixed):
    jobs = [
        Job(job.name, job.arrival_s + number * 1e-3, 1, job.duration_s + number * 1e-5)
        for number, job in enumerate(mixed(7, largest=1, gap=30))
    ]
    ours = simulate(jobs, 1, SJF).ends
    assert ours == pytest.approx(with_resource(jobs, lambda job: job.duration_s))
    assert simulate(jobs, 1, STRICT_SJF).ends == ours  # of one GPU each, nobody can be skipped


def second_by_second(jobs, gpus, key):
    """When each job ends if every second goes to those that are first by `key`; times are whole seconds."""
    left, ends, now = {}, {}, 0
    coming = sorted(jobs, key=lambda job: job.arrival_s)
    while coming or left:
        while coming and coming[0].arrival_s <= now:
            job = coming.pop(0)
            left[job] = job.duration_s
        free = gpus
        for job in sorted(left, key=lambda job: (key(job, left[job]), job.arrival_s, int(job.name[1:]))):
            if job.gpus <= free:
                free -= job.gpus
                left[job] -= 1
                if not left[job]:
                    ends[job.name] = float(now + 1)
        left = {job: seconds for job, seconds in left.items() if seconds}
        now += 1
    return ends


def untied(key):
    """By `key`, and where two are equal by arrival, as the loop above does."""
    return lambda one: (key(one), one.job.arrival_s, int(one.job.name[1:]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("key", "theirs"),
    [(remaining, lambda job, left: left), (service, lambda job, left: left * job.gpus)],
    ids=["time", "service"],
)
def test_who_stops_others_ends_as_in_a_loop_over_seconds(mixed, seed, key, theirs):
    """The order by what is left changes while jobs run, but only in favor of those that run."""
    jobs = mixed(seed, 80, gap=12)
    ours = simulate(jobs, 8, Preemptive("ours", untied(key)))
    assert ours.ends == second_by_second(jobs, 8, theirs)
    assert len(ours.runs) > len(jobs)  # somebody was stopped


@by_policy
def test_no_work_is_lost_or_done_twice_and_no_gpu_is_held_twice(owned, policy):
    jobs = owned(11, policy)
    schedule = simulate(jobs, 8, policy)
    assert set(schedule.ends) == {job.name for job in jobs}
    for job in jobs:
        runs = [run for run in schedule.runs if run.job == job]
        assert measures.held_gpu_s(runs) == pytest.approx(job.work_gpu_s)
        assert min(run.start_s for run in runs) >= job.arrival_s
        assert max(run.end_s for run in runs) == schedule.ends[job.name]
        assert all(run.gpus == job.gpus for run in runs)  # all or nothing
    changes = sorted(
        [(run.end_s, -run.gpus) for run in schedule.runs] + [(run.start_s, run.gpus) for run in schedule.runs]
    )
    held = 0
    for _, change in changes:
        held += change
        assert 0 <= held <= 8
    assert {sample.held for sample in schedule.samples} <= set(range(9))


@by_policy
def test_littles_law(owned, policy):
    """Jobs counted at each event, times the time, are the completion times summed: two accounts of one thing."""
    schedule = simulate(owned(12, policy), 8, policy)
    times = measures.jct_s(schedule)
    span_s = schedule.samples[-1].at_s - schedule.samples[0].at_s
    there = measures.mean_over_time(schedule, "waiting") + measures.mean_over_time(schedule, "running")
    assert there == pytest.approx(len(times) / span_s * (sum(times.values()) / len(times)))
    assert measures.mean_over_time(schedule, "held") * span_s == pytest.approx(measures.held_gpu_s(schedule.runs))


def idle_and_wanted(schedule, jobs):
    """Moments after an event at which a job waited that would have fitted on the free GPUs."""
    found = []
    for sample in schedule.samples:
        holding = {run.job.name for run in schedule.runs if run.start_s <= sample.at_s < run.end_s}
        waiting = [
            job for job in jobs if job.arrival_s <= sample.at_s < schedule.ends[job.name] and job.name not in holding
        ]
        if any(job.gpus <= schedule.gpus - sample.held for job in waiting):
            found.append(sample.at_s)
    return found


@by_policy
def test_work_conservation(owned, policy):
    """Who skips or deals all GPUs out leaves none idle that a waiting job could use; the strict do."""
    jobs = owned(13, policy)
    assert bool(idle_and_wanted(simulate(jobs, 8, policy), jobs)) == (policy in STRICT)


def test_a_restart_costs_time_and_what_was_not_saved():
    """A long job is stopped by a short one after 10 s; then it has 90 s to go, and an overhead or a loss before."""
    jobs = [Job("long", 0, 1, 100), Job("short", 10, 1, 5)]
    for overhead_s, checkpoint_s, end_s in ((0, 0, 105), (7, 0, 112), (0, 4, 107), (0, math.inf, 115), (7, 4, 114)):
        schedule = simulate(jobs, 1, SRTF, overhead_s=overhead_s, checkpoint_s=checkpoint_s)
        assert schedule.ends == {"short": 15, "long": end_s}
    assert [(run.job.name, run.start_s, run.end_s) for run in schedule.runs] == [
        ("long", 0, 10),
        ("short", 10, 15),
        ("long", 15, 114),
    ]


def test_a_job_that_is_stopped_while_it_restarts_has_lost_nothing_more():
    jobs = [Job("long", 0, 1, 100), Job("a", 10, 1, 5), Job("b", 16, 1, 5)]  # b comes 1 s into the restart of 7 s
    assert simulate(jobs, 1, SRTF, overhead_s=7).ends == {"a": 15, "b": 21, "long": 21 + 7 + 90}


def test_single_placement_deadlocks_where_gangs_do_not():
    """Two jobs of 8 hold 4 GPUs each: nobody works, and nothing will ever happen again."""
    jobs = [Job("a", 0, 8, 60), Job("b", 0, 8, 60)]
    with pytest.raises(Deadlock, match="a holds 4 of 8, b holds 4 of 8, 0 wait, 0 GPUs are free"):
        simulate(jobs, 8, OneByOne())
    assert simulate(jobs, 8, FIFO).ends == {"a": 60, "b": 120}


def test_single_placement_wastes_gpus_even_where_it_does_not_deadlock():
    """A job of 6 holds 4 of them beside one of 4, and waits until that one is over."""
    jobs = [Job("a", 0, 4, 60), Job("b", 0, 6, 60)]
    schedule = simulate(jobs, 8, OneByOne())
    assert schedule.ends == {"a": 60, "b": 120}
    assert [(run.job.name, run.start_s, run.gpus) for run in schedule.runs] == [("a", 0, 4), ("b", 0, 4), ("b", 60, 6)]
    assert measures.first_starts_s(schedule)["b"] == 60  # holding too few is not a start
    assert measures.utilization(schedule) == pytest.approx((4 * 60 + 4 * 60 + 6 * 60) / (8 * 120))


def test_idle_in_gangs_counts_what_is_held_for_nothing():
    seen = []

    class Watched(OneByOne):
        def choose(self, now_s, waiting, running, free):
            seen.append(idle_in_gangs(running))
            return super().choose(now_s, waiting, running, free)

    simulate([Job("a", 0, 4, 60), Job("b", 0, 6, 60), Job("c", 30, 1, 1)], 8, Watched())
    assert seen == [0, 4, 4, 0, 0]


class Grants:
    """Does what it is told, once."""

    name = "grants"

    def __init__(self, count, again_s=math.inf):
        self.count, self.again_s = count, again_s

    def choose(self, now_s, waiting, running, free):
        return Decision(dict.fromkeys(waiting, self.count), self.again_s)


def test_what_cannot_be_is_refused():
    two = [Job("a", 0, 2, 1), Job("b", 0, 2, 1)]
    with pytest.raises(ValueError, match="two jobs have the name a"):
        simulate([two[0], two[0]], 4, FIFO)
    with pytest.raises(ValueError, match="job a needs 2 GPUs, and the cluster has 1"):
        simulate(two, 1, FIFO)
    with pytest.raises(ValueError, match="grants grants 1 GPUs more than the cluster has"):
        simulate(two, 3, Grants(2))
    with pytest.raises(ValueError, match="grants grants a 3 GPUs of 2"):
        simulate(two, 8, Grants(3))
    with pytest.raises(ValueError, match="which has passed"):
        simulate(two, 8, Grants(2, 0.0))
    with pytest.raises(Deadlock, match="nobody works and nobody is to come; 2 wait, 8 GPUs are free"):
        simulate(two, 8, Grants(0))
    for wrong in ({"gpus": 0}, {"gpus": 2, "least_gpus": 3}, {"duration_s": 0}, {"limit_s": 5.0}, {"arrival_s": -1}):
        with pytest.raises(ValueError, match="job x"):
            Job(**{"name": "x", "arrival_s": 0, "gpus": 1, "duration_s": 9.0} | wrong)


def test_elastic_jobs_share_and_finish_sooner_where_they_do_not_scale():
    """Two jobs that ask for 8 on a cluster of 8. On linear jobs sharing does the same work; under Amdahl, more."""
    jobs = [Job("a", 0, 8, 100, least_gpus=1), Job("b", 0, 8, 100, least_gpus=1)]
    assert simulate(jobs, 8, FIFO).ends == {"a": 100, "b": 200}
    assert simulate(jobs, 8, Elastic()).ends == pytest.approx({"a": 200, "b": 200})
    speed = amdahl(0.1)
    assert speed(jobs[0], 8) == 1 and speed(jobs[0], 4) == pytest.approx((0.1 + 0.9 / 8) / (0.1 + 0.9 / 4))
    shared = simulate(jobs, 8, Elastic(), speed=speed)
    assert max(shared.ends.values()) == pytest.approx(100 / speed(jobs[0], 4)) and max(shared.ends.values()) < 200
    assert speed(Job("c", 0, 8, 1, least_gpus=4), 3) == 0


def test_elastic_jobs_grow_when_others_leave_and_pay_for_it():
    jobs = [Job("a", 0, 8, 100, least_gpus=2), Job("b", 0, 4, 50)]
    schedule = simulate(jobs, 8, Elastic(), overhead_s=5)
    assert [(run.job.name, run.start_s, run.end_s, run.gpus) for run in schedule.runs] == [
        ("b", 0, 50, 4),
        ("a", 0, 50, 4),
        ("a", 50, 50 + 5 + 75, 8),
    ]


def test_elastic_rounds_keep_their_hours():
    jobs = [Job("a", 0, 8, 100, least_gpus=2), Job("b", 10, 8, 100, least_gpus=2)]
    for every_s in (60, 0.1, 7.3):
        schedule = simulate(jobs, 8, Elastic(every_s=every_s))
        changed = {run.start_s for run in schedule.runs}
        assert changed <= {every_s * number for number in range(3000)} and len(changed) > 1
    assert simulate(jobs, 8, Elastic(every_s=60)).runs[0].end_s == 60


def test_levels_fall_when_they_should():
    """A job of 2 GPUs falls after 10 s at 20 GPU seconds, and then gives way to one that has just come."""
    jobs = [Job("old", 0, 2, 100), Job("new", 4, 2, 5)]
    schedule = simulate(jobs, 2, Levels((20.0,)))
    assert [(run.job.name, run.start_s, run.end_s) for run in schedule.runs] == [
        ("old", 0, 10),
        ("new", 10, 15),
        ("old", 15, 105),
    ]


def test_the_shortest_remaining_time_is_not_best_where_jobs_need_several_gpus():
    """A job of 4 GPUs stops four jobs of one that have 1 s more to go: one ends early, and four end late."""
    jobs = [*(Job(f"small {number}", 0, 1, 10) for number in range(4)), Job("large", 1, 4, 8)]
    by_time, kept, by_service = (
        sum(measures.jct_s(simulate(jobs, 4, policy)).values()) for policy in (SRTF, SJF, SRSF)
    )
    assert by_time == 8 + 4 * 18 and kept == by_service == 4 * 10 + 17


def test_limits_lead_who_trusts_them(mixed):
    """With limits that are ten times too long for some, the order by limits is not the order by truth."""
    jobs = mixed(3, most=10.0)
    by_truth, by_word = (simulate(jobs, 8, Preemptive("", key)) for key in (remaining, by_limit))
    assert sum(measures.jct_s(by_truth).values()) < sum(measures.jct_s(by_word).values())
