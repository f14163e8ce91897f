"""How good a schedule was, and for whom.

The job completion time (JCT) is from arrival to end, the wait from arrival to the first start, the slowdown the JCT
over the duration. A mean over jobs speaks for small jobs, because most are small; weighted by GPU hours it speaks for
large ones, and the two can disagree. A mean hides its tail, so the longest wait stands beside it.

*Makespan* is from the first arrival to the last end, *utilization* the part of GPU seconds in it that somebody held,
also where he held too few to work. When no more jobs come, a few long ones are left, and most GPUs are idle under any
policy; `busy` therefore looks from the first arrival to the last one. Where all jobs are done soon after, both say how
much was submitted, and little of how well it was scheduled.

Fairness: Jain's index (1984) is the squared mean of values over the mean of their squares, 1 where all are equal and
one over their number where one has all.
Finish-time fairness (Themis, Mahajan et al., NSDI 2020) holds a job's JCT against what it would be on the job's share
of the cluster alone: GPUs over the mean number of jobs that were there with it, at linear speed. Above 1 the job would
have done better with a share of its own.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from parallel_lab.systems.scheduling.cluster import Job, Run, Schedule


def by_name(schedule: Schedule) -> dict[str, Job]:
    """The jobs, in the order of their ends."""
    jobs = {run.job.name: run.job for run in schedule.runs}
    return {name: jobs[name] for name in schedule.ends}


def jct_s(schedule: Schedule) -> dict[str, float]:
    """For each job the time from arrival to end."""
    return {name: schedule.ends[name] - job.arrival_s for name, job in by_name(schedule).items()}


def first_starts_s(schedule: Schedule) -> dict[str, float]:
    """For each job when it first held GPUs enough to work."""
    firsts: dict[str, float] = {}
    for run in schedule.runs:
        if run.gpus >= run.job.least:
            firsts[run.job.name] = min(run.start_s, firsts.get(run.job.name, run.start_s))
    return firsts


def wait_s(schedule: Schedule) -> dict[str, float]:
    """For each job the time from arrival to its first start."""
    firsts = first_starts_s(schedule)
    return {name: firsts[name] - job.arrival_s for name, job in by_name(schedule).items()}


def delay_s(schedule: Schedule) -> dict[str, float]:
    """For each job its JCT less its duration: before its start, between its starts, and by running on fewer GPUs."""
    jobs = by_name(schedule)
    return {name: time_s - jobs[name].duration_s for name, time_s in jct_s(schedule).items()}


def slowdown(schedule: Schedule, *, least_s: float = 0.0) -> dict[str, float]:
    """For each job its JCT over its duration; durations below `least_s` count as that long (bounded slowdown)."""
    jobs, times_s = by_name(schedule), jct_s(schedule)
    return {name: max(1.0, times_s[name] / max(job.duration_s, least_s)) for name, job in jobs.items()}


def makespan_s(schedule: Schedule) -> float:
    """From the first arrival to the last end."""
    return max(schedule.ends.values()) - min(run.job.arrival_s for run in schedule.runs)


def utilization(schedule: Schedule) -> float:
    """The part of the GPU seconds of the makespan that somebody held."""
    return held_gpu_s(schedule.runs) / (schedule.gpus * makespan_s(schedule))


def busy(schedule: Schedule) -> float:
    """The part of the GPUs that somebody held, from the first arrival to the last one."""
    arrivals = [run.job.arrival_s for run in schedule.runs]
    last_s = max(arrivals)
    cut = [run._replace(end_s=min(run.end_s, last_s)) for run in schedule.runs if run.start_s < last_s]
    return held_gpu_s(cut) / (schedule.gpus * (last_s - min(arrivals)))


def held_gpu_s(runs: Iterable[Run]) -> float:
    """The GPU seconds of some stretches."""
    return sum(run.gpus * (run.end_s - run.start_s) for run in runs)


def jain(values: Iterable[float]) -> float:
    """Jain's index of fairness: 1 where all values are equal, one over their number where one has all."""
    values = list(values)
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def finish_time_fairness(schedule: Schedule) -> dict[str, float]:
    """For each job its JCT over the time that it would take alone on its share of the cluster."""
    times_s, summed = [sample.at_s for sample in schedule.samples], [0.0]
    for before, now in pairwise(schedule.samples):
        summed.append(summed[-1] + (before.waiting + before.running) * (now.at_s - before.at_s))
    fairness = {}
    for name, job in by_name(schedule).items():
        first, last = (bisect_left(times_s, at_s) for at_s in (job.arrival_s, schedule.ends[name]))
        jct = schedule.ends[name] - job.arrival_s
        others = (summed[last] - summed[first]) / jct
        fairness[name] = jct / (job.duration_s * max(1.0, job.gpus * others / schedule.gpus))
    return fairness


def mean_over_time(schedule: Schedule, what: str) -> float:
    """The mean over time, from the first event to the last, of what the samples count: waiting, running or held."""
    samples = schedule.samples
    area = sum(getattr(before, what) * (now.at_s - before.at_s) for before, now in pairwise(samples))
    return area / (samples[-1].at_s - samples[0].at_s)


def weighted_mean(values: Mapping[str, float], jobs: Mapping[str, Job]) -> float:
    """The mean over GPU seconds of work, where a plain mean is one over jobs."""
    work = {name: jobs[name].work_gpu_s for name in values}
    return sum(values[name] * work[name] for name in values) / sum(work.values())


def quantile(values: Iterable[float], part: float) -> float:
    """The smallest value that at least this part of all values does not exceed."""
    values = sorted(values)
    return values[max(0, -int(-part * len(values) // 1) - 1)]


@dataclass(frozen=True)
class Summary:
    """One row of a table of policies; hours, as all times of a cluster's jobs are told."""

    policy: str
    mean_jct_h: float
    median_jct_h: float
    p99_jct_h: float
    weighted_jct_h: float  # by GPU hours
    mean_wait_h: float
    longest_wait_h: float
    makespan_h: float
    utilization: float
    busy: float
    jain_slowdown: float
    unfair: float  # the part of jobs whose finish-time fairness is above 1
    restarts: int


def summary(schedule: Schedule) -> Summary:
    """The row of a schedule."""
    jobs, times_s, waits_s = by_name(schedule), jct_s(schedule), wait_s(schedule)
    fairness = finish_time_fairness(schedule)
    return Summary(
        policy=schedule.policy,
        mean_jct_h=fmean(times_s.values()) / 3600,
        median_jct_h=median(times_s.values()) / 3600,
        p99_jct_h=quantile(times_s.values(), 0.99) / 3600,
        weighted_jct_h=weighted_mean(times_s, jobs) / 3600,
        mean_wait_h=fmean(waits_s.values()) / 3600,
        longest_wait_h=max(waits_s.values()) / 3600,
        makespan_h=makespan_s(schedule) / 3600,
        utilization=utilization(schedule),
        busy=busy(schedule),
        jain_slowdown=jain(slowdown(schedule, least_s=600).values()),
        unfair=fmean(value > 1 + 1e-9 for value in fairness.values()),
        restarts=len(schedule.runs) - len(jobs),
    )
