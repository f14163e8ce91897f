"""Jobs dealt out over a cluster: policies on a simulated one and on real traces; Slurm; metrics and alarms."""

from parallel_lab.systems.scheduling.cluster import Job, Progress, Run, Sample, Schedule, linear
from parallel_lab.systems.scheduling.simulator import Deadlock, Decision, Policy, simulate
from parallel_lab.systems.scheduling.slurm_run import SlurmRun, run_slurm

__all__ = [
    "Deadlock",
    "Decision",
    "Job",
    "Policy",
    "Progress",
    "Run",
    "Sample",
    "Schedule",
    "SlurmRun",
    "linear",
    "run_slurm",
    "simulate",
]
