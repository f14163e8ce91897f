"""Jobs dealt out over a cluster: policies on a simulated one and on real traces; Slurm; metrics and alarms."""

from parallel_lab.systems.scheduling import measures, openb, orders, queues, trace
from parallel_lab.systems.scheduling.backfill import Conservative, Easy, Profile, promise
from parallel_lab.systems.scheduling.cluster import Job, Progress, Run, Sample, Schedule, linear
from parallel_lab.systems.scheduling.elastic import Elastic, amdahl
from parallel_lab.systems.scheduling.gang import OneByOne, idle_in_gangs
from parallel_lab.systems.scheduling.levels import Levels
from parallel_lab.systems.scheduling.measures import Summary, summary
from parallel_lab.systems.scheduling.orders import FIFO, SJF, SKIPPING, SRSF, SRTF, STRICT_SJF, InOrder, Preemptive
from parallel_lab.systems.scheduling.simulator import Deadlock, Decision, Policy, simulate

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
    "InOrder",
    "Job",
    "Levels",
    "OneByOne",
    "Policy",
    "Preemptive",
    "Profile",
    "Progress",
    "Run",
    "Sample",
    "Schedule",
    "Summary",
    "amdahl",
    "idle_in_gangs",
    "linear",
    "measures",
    "openb",
    "orders",
    "promise",
    "queues",
    "simulate",
    "summary",
    "trace",
]
