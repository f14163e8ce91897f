"""Least attained service in levels: what a job has used so far stands in for what it will need.

Nobody knows how long a job will take. Of jobs whose durations have a heavy tail, one that has run for long has
probably long to go; so whoever has used least goes first (least attained service, LAS). Strictly, two equal jobs would
then take turns for ever. A multi-level feedback queue cuts the order into levels: a job begins in the highest, falls
one for each threshold of service that it passes, and within a level the order is that of arrival. Service is GPUs times
time, as in Tiresias (Gu et al., NSDI 2019, its discretized two-dimensional LAS; its promotion of jobs that starve is
left out here).
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from parallel_lab.systems.scheduling.cluster import Progress
from parallel_lab.systems.scheduling.orders import fill
from parallel_lab.systems.scheduling.simulator import Decision

HOUR = 3600.0
_NEAR = 1e-3  # GPU seconds; a threshold counts as passed where less than that is missing, as by rounding


@dataclass(frozen=True)
class Levels:
    """Preemptive: the highest level first, and in a level the order of arrival.

    Attributes:
        thresholds_gpu_s: the service with which a job falls to the next level, ascending.
        name: for tables.
    """

    thresholds_gpu_s: tuple[float, ...] = (HOUR, 10 * HOUR, 100 * HOUR)
    name: str = "LAS in levels"

    def level(self, one: Progress) -> int:
        """The level of a job, 0 for the highest."""
        return bisect_right(self.thresholds_gpu_s, one.served_gpu_s + _NEAR)

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """Deals the GPUs out by level, and asks to be asked when the next job would fall."""
        gpus = free + sum(one.gpus for one in running)
        dealt = fill([*running, *waiting], gpus, lambda one: (self.level(one), one.job.arrival_s))
        return Decision(dealt, now_s + min((self._falls_s(one, dealt[one]) for one in dealt), default=math.inf))

    def _falls_s(self, one: Progress, gpus: int) -> float:
        """In how many seconds the job falls."""
        level = self.level(one)
        if not gpus or level == len(self.thresholds_gpu_s):
            return math.inf
        return (self.thresholds_gpu_s[level] - one.served_gpu_s) / gpus
