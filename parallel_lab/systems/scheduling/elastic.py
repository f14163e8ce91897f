"""Elastic jobs: who can run with fewer GPUs shares them instead of waiting.

Every job gets its least number of GPUs in the order of arrival, as far as they go; then each further GPU goes to the
job with the smallest part of what it asked for. A rigid job gets all or nothing. Each change of a number is a restart
from a checkpoint, so changes are made in rounds of `every_s` (Pollux, Qiao et al., OSDI 2021, has rounds of 60 s and
decides by goodput; here shares decide).

What it gains depends on how a job speeds up. Where twice the GPUs are twice as fast, sharing does the same work in the
same time, and changes only whose work is done first. Where they are not, fewer GPUs each do more work a GPU, so a
cluster that shares does more in all. `amdahl` gives such a speed.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from parallel_lab.systems.scheduling.cluster import Job, Progress, Speed
from parallel_lab.systems.scheduling.simulator import Decision


@dataclass(frozen=True)
class Elastic:
    """Shares by need, in rounds.

    Attributes:
        every_s: the time between two rounds; 0 makes one at each event.
        name: for tables.
    """

    every_s: float = 0.0
    name: str = "elastic"

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """The shares of this round; between two rounds nothing changes."""
        again_s = math.inf
        if self.every_s:
            number = round(now_s / self.every_s)  # of the nearest round
            again_s = (number + (number * self.every_s <= now_s)) * self.every_s
            if number * self.every_s != now_s:
                return Decision({}, again_s)
        jobs = sorted([*running, *waiting], key=lambda one: one.job.arrival_s)
        return Decision(shares(jobs, free + sum(one.gpus for one in running)), again_s)


def shares(jobs: Sequence[Progress], gpus: int) -> dict[Progress, int]:
    """The least for each in turn, as far as it goes, then one by one to the smallest part of what was asked for."""
    dealt = dict.fromkeys(jobs, 0)
    for one in jobs:
        if one.job.least <= gpus:
            dealt[one] = one.job.least
            gpus -= one.job.least
    hungry = [(dealt[one] / one.job.gpus, place) for place, one in enumerate(jobs) if 0 < dealt[one] < one.job.gpus]
    heapq.heapify(hungry)
    while gpus and hungry:
        one = jobs[hungry[0][1]]
        dealt[one] += 1
        gpus -= 1
        if dealt[one] == one.job.gpus:
            heapq.heappop(hungry)
        else:
            heapq.heapreplace(hungry, (dealt[one] / one.job.gpus, hungry[0][1]))
    return dealt


def amdahl(serial: float) -> Speed:
    """The pace of jobs of which a part `serial` of the work on one GPU does not get faster with more (Amdahl 1967)."""

    def speedup(gpus: int) -> float:
        return 1 / (serial + (1 - serial) / gpus)

    def pace(job: Job, gpus: int) -> float:
        return speedup(gpus) / speedup(job.gpus) if gpus >= job.least else 0.0

    return pace
