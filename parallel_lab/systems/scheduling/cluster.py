"""A cluster's jobs: what one asks for, where it stands, and when it held how many GPUs.

A job asks for `gpus` GPUs and needs `duration_s` on them; the product is its work, in GPU seconds. It is rigid unless
`least_gpus` says that it also runs with fewer. GPUs are counted here and all alike: on which machine they stand is the
subject of `placement`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Job:
    """What one user asks for.

    Attributes:
        name: unlike that of any other job.
        arrival_s: when it is submitted.
        gpus: how many it asks for; it holds no more than that.
        duration_s: how long it works on `gpus` GPUs. The cluster does not know it before the end.
        user: whose it is.
        limit_s: the time after which it may be ended, which its user has given; the duration, where none is given.
        priority: a larger one is more urgent.
        least_gpus: with how many it works at all; `gpus`, where none is given.
    """

    name: str
    arrival_s: float
    gpus: int
    duration_s: float
    user: str = ""
    limit_s: float | None = None
    priority: int = 0
    least_gpus: int | None = None

    def __post_init__(self):
        if self.gpus < 1 or not 1 <= self.least <= self.gpus:
            raise ValueError(f"job {self.name}: gpus={self.gpus}, least_gpus={self.least_gpus}; expected 1 to gpus")
        if not 0 < self.duration_s < math.inf or not 0 <= self.arrival_s < math.inf:
            raise ValueError(f"job {self.name}: arrives at {self.arrival_s} s and works for {self.duration_s} s")
        if self.limit < self.duration_s:
            raise ValueError(f"job {self.name}: it would be ended at its limit of {self.limit_s} s, before it is done")

    @property
    def least(self) -> int:
        """The fewest GPUs on which it works."""
        return self.gpus if self.least_gpus is None else self.least_gpus

    @property
    def limit(self) -> float:
        """How long it may take, as far as the cluster knows."""
        return self.duration_s if self.limit_s is None else self.limit_s

    @property
    def work_gpu_s(self) -> float:
        """Its work, in GPU seconds."""
        return self.gpus * self.duration_s


@dataclass(eq=False, slots=True)
class Progress:
    """A job in the cluster and where it stands: what a policy sees, and only the simulator changes.

    Attributes:
        job: the job.
        left_s: the work that is left, in seconds on all of its GPUs. Only a policy that is told the truth may look.
        gpus: how many it holds now; 0 while it waits.
        since_s: since when it has held so many, or has waited.
        pace: the work in seconds that it does in a second; 0 while it waits or holds too few.
        end_s: when it ends if nothing changes.
        served_gpu_s: the GPU seconds that it has held so far.
        starts: how often it has begun to work, restarts included.
    """

    job: Job
    left_s: float
    gpus: int = 0
    since_s: float = 0.0
    pace: float = 0.0
    end_s: float = math.inf
    served_gpu_s: float = 0.0
    starts: int = 0

    @property
    def limit_left_s(self) -> float:
        """The seconds on all of its GPUs that it may still take, by its limit."""
        return self.left_s + self.job.limit - self.job.duration_s

    @property
    def latest_end_s(self) -> float:
        """When it ends at the latest, by its limit, if nothing changes; never, while it does no work."""
        return self.end_s + (self.job.limit - self.job.duration_s) / self.pace if self.pace else math.inf


class Run(NamedTuple):
    """A stretch of time over which a job held the same number of GPUs; fewer than its least do no work."""

    job: Job
    start_s: float
    end_s: float
    gpus: int


class Sample(NamedTuple):
    """What was seen right after an event: jobs that wait, jobs that hold GPUs, and GPUs held."""

    at_s: float
    waiting: int
    running: int
    held: int


@dataclass
class Schedule:
    """What became of all jobs under a policy.

    Attributes:
        policy: the name of the policy.
        gpus: how many the cluster has.
        runs: who held how many GPUs from when to when, in the order of the ends.
        ends: when each job was done, by its name, in the order of the ends.
        samples: the cluster after each event.
    """

    policy: str
    gpus: int
    runs: list[Run] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)


Speed = Callable[[Job, int], float]


def linear(job: Job, gpus: int) -> float:
    """The pace on so many GPUs, 1 on all: in proportion, and nothing below the least."""
    return gpus / job.gpus if gpus >= job.least else 0.0
