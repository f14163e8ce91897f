"""Priorities: who is more urgent goes first, and may take GPUs from who is less.

Without preemption an urgent job waits until GPUs fall free, and long jobs hold theirs for days. With it the job starts
at once, and somebody else pays: what the stopped job did since its last checkpoint is done again, and its restart takes
`overhead_s` (both are arguments of `simulate`). Whom to stop is a choice. All rules here take the least priority first.
Among equals, `youngest` stops who has run for the shortest time, so that old jobs come to an end; `fewest` stops large
jobs first, so that few are stopped, and more is lost at once.

Where urgent jobs keep coming, one of low priority waits for as long as they do. *Aging* raises a job's priority by one
for each `age_s` that it has waited, as Slurm's multifactor plugin and older systems do. It moves a job up in the line;
whoever is stopped is chosen by the priorities that were given, so aging never stops a job.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from parallel_lab.systems.scheduling.cluster import Progress, Schedule
from parallel_lab.systems.scheduling.measures import by_name, held_gpu_s
from parallel_lab.systems.scheduling.simulator import Decision

Victims = Callable[[Progress], Any]  # the smallest is stopped first


def youngest(one: Progress) -> tuple[int, float]:
    """The least priority, and of these who got his GPUs last."""
    return one.job.priority, -one.since_s


def fewest(one: Progress) -> tuple[int, int, float]:
    """The least priority, and of these the largest job, so that few are stopped."""
    return one.job.priority, -one.gpus, -one.since_s


@dataclass(frozen=True)
class Priorities:
    """The most urgent first, in the order of arrival among equals; a job that does not fit holds up all behind it.

    Attributes:
        preempts: the first in the line may stop jobs of less priority.
        victims: the order in which they are stopped.
        age_s: raises a job's priority in the line by one for each so many seconds that it has waited since arrival.
        name: for tables.
    """

    preempts: bool = False
    victims: Victims = youngest
    age_s: float = inf
    name: str = "priorities"

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """Goes down the line as far as jobs fit, or can be made to fit."""
        changes: dict[Progress, int] = {}
        for one in sorted(waiting, key=lambda one: -self.urgency(one, now_s)):  # stable: by arrival among equals
            left = [other for other in running if other not in changes]
            stopped = self.stopped_for(one, left, free) if one.job.gpus > free else []
            if stopped is None:
                break
            changes |= dict.fromkeys(stopped, 0) | {one: one.job.gpus}
            free += sum(other.gpus for other in stopped) - one.job.gpus
        return Decision(changes)

    def urgency(self, one: Progress, now_s: float) -> float:
        """Its priority in the line, with what it gains by waiting."""
        return one.job.priority + (now_s - one.job.arrival_s) / self.age_s

    def stopped_for(self, one: Progress, running: Iterable[Progress], free: int) -> list[Progress] | None:
        """Whom to stop so that a job fits; None where that cannot be, and then nobody is stopped."""
        if not self.preempts:
            return None
        stopped: list[Progress] = []
        for other in sorted((other for other in running if other.job.priority < one.job.priority), key=self.victims):
            stopped.append(other)
            free += other.gpus
            if free >= one.job.gpus:
                return needed(stopped, free - one.job.gpus)
        return None


def needed(stopped: Sequence[Progress], spare: int) -> list[Progress]:
    """Those who must be stopped indeed: who is not needed because a later one is large goes on, the last ones first."""
    kept = list(stopped)
    for other in reversed(stopped):
        if other.gpus <= spare:
            kept.remove(other)
            spare -= other.gpus
    return kept


def wasted_gpu_s(schedule: Schedule) -> float:
    """The GPU seconds that were held and did no work that lasted: repeated after a stop, or spent on restarts."""
    return held_gpu_s(schedule.runs) - sum(job.work_gpu_s for job in by_name(schedule).values())


def by_priority(values: dict[str, float], schedule: Schedule) -> dict[int, float]:
    """The mean of a measure for the jobs of each priority, the most urgent first."""
    jobs, groups = by_name(schedule), {}
    for name, value in values.items():
        groups.setdefault(jobs[name].priority, []).append(value)
    return {priority: sum(group) / len(group) for priority, group in sorted(groups.items(), reverse=True)}
