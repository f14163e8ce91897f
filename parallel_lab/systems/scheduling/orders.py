"""Whose turn it is: policies that differ only in the order in which jobs are looked at.

`InOrder` starts waiting jobs in an order and stops nobody. With the order of arrival this is FIFO (first in, first
out). Its weakness is the head of the line: a job of 32 GPUs that waits for room holds up all behind it, free GPUs or
not. Whoever *skips* goes on to the next job that fits; then GPUs are rarely idle, and a large job may wait for as long
as small ones keep coming.

`Preemptive` looks at all jobs at every event, stops those that come late in the order, and starts those that come
early. With the shortest remaining time first it has the least mean completion time on one GPU (Schrage 1968); jobs
that need several GPUs break the proof. The remaining *service*, time times GPUs, has the lower mean on the trace of
`benchmarks/scheduling.py` (38.5 h against 43.3 h). Both must be told how long a job will take, which nobody knows:
`by_limit` takes what its user has said.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from parallel_lab.systems.scheduling.cluster import Progress
from parallel_lab.systems.scheduling.simulator import Decision

Key = Callable[[Progress], Any]


def arrival(one: Progress) -> float:
    """First come, first served."""
    return one.job.arrival_s


def duration(one: Progress) -> float:
    """The shortest first, by the truth."""
    return one.job.duration_s


def remaining(one: Progress) -> float:
    """The shortest remaining time first, by the truth."""
    return one.left_s


def service(one: Progress) -> float:
    """The least remaining time times GPUs first, by the truth."""
    return one.left_s * one.job.gpus


def by_limit(one: Progress) -> float:
    """The shortest remaining time first, by what users have said."""
    return one.limit_left_s


@dataclass(frozen=True)
class InOrder:
    """Starts waiting jobs in an order and stops nobody.

    Attributes:
        name: for tables.
        key: the order; the smallest first.
        skips: goes on behind a job that does not fit.
    """

    name: str
    key: Key = arrival
    skips: bool = False

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """All that fit, in the order."""
        starts: dict[Progress, int] = {}
        for one in waiting if self.key is arrival else sorted(waiting, key=self.key):
            if one.job.gpus <= free:
                starts[one] = one.job.gpus
                free -= one.job.gpus
            elif not self.skips:
                break
        return Decision(starts)


@dataclass(frozen=True)
class Preemptive:
    """Gives GPUs to the first in an order, whoever holds them.

    Attributes:
        name: for tables.
        key: the order; the smallest first.
    """

    name: str
    key: Key

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """All that fit, in the order; who holds GPUs and does not fit any more is stopped."""
        return Decision(fill([*running, *waiting], free + sum(one.gpus for one in running), self.key))


def fill(jobs: Iterable[Progress], gpus: int, key: Key) -> dict[Progress, int]:
    """Deals so many GPUs out in the order of `key`; whoever does not fit gets none, and the next one may."""
    dealt: dict[Progress, int] = {}
    for one in sorted(jobs, key=key):
        dealt[one] = one.job.gpus if one.job.gpus <= gpus else 0
        gpus -= dealt[one]
    return dealt


FIFO = InOrder("FIFO")
SKIPPING = InOrder("FIFO, skipping", skips=True)
SJF = InOrder("SJF", duration, skips=True)
STRICT_SJF = InOrder("SJF, strict", duration)
SRTF = Preemptive("SRTF", remaining)
SRSF = Preemptive("SRSF", service)
