"""Jobs dealt out over a cluster: policies on a simulated one and on real traces; Slurm; metrics and alarms."""

from parallel_lab.systems.scheduling import (
    measures,
    openb,
    orders,
    placement,
    priorities,
    queues,
    quotas,
    shares,
    slurm,
    topology,
    trace,
)
from parallel_lab.systems.scheduling.backfill import Conservative, Easy, Profile, promise
from parallel_lab.systems.scheduling.cluster import Job, Progress, Run, Sample, Schedule, linear
from parallel_lab.systems.scheduling.elastic import Elastic, amdahl
from parallel_lab.systems.scheduling.gang import OneByOne, idle_in_gangs
from parallel_lab.systems.scheduling.levels import Levels
from parallel_lab.systems.scheduling.measures import Summary, summary
from parallel_lab.systems.scheduling.orders import FIFO, SJF, SKIPPING, SRSF, SRTF, STRICT_SJF, InOrder, Preemptive
from parallel_lab.systems.scheduling.priorities import Priorities
from parallel_lab.systems.scheduling.quotas import Quotas
from parallel_lab.systems.scheduling.shares import FairShares
from parallel_lab.systems.scheduling.simulator import Deadlock, Decision, Policy, simulate
from parallel_lab.systems.scheduling.slurm_run import SlurmRun, run_slurm

__all__ = [
    "FIFO",
    "SJF",
    "SKIPPING",
    "SRSF",
    "SRTF",
    "STRICT_SJF",
    "Conservative",
    "Deadlock",
    "Decision",
    "Easy",
    "Elastic",
    "FairShares",
    "InOrder",
    "Job",
    "Levels",
    "OneByOne",
    "Policy",
    "Preemptive",
    "Priorities",
    "Profile",
    "Progress",
    "Quotas",
    "Run",
    "Sample",
    "Schedule",
    "SlurmRun",
    "Summary",
    "amdahl",
    "idle_in_gangs",
    "linear",
    "measures",
    "openb",
    "orders",
    "placement",
    "priorities",
    "promise",
    "queues",
    "quotas",
    "run_slurm",
    "shares",
    "simulate",
    "slurm",
    "summary",
    "topology",
    "trace",
]
