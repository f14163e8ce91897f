"""A cluster in virtual time: from event to event, and at each of them the policy decides.

    simulate(jobs, gpus, policy, *, overhead_s=0.0, checkpoint_s=0.0, speed=linear) -> Schedule

An event is the arrival of a job, the end of one, or a moment that the policy has asked for. What happens at one moment
is one event. Then the policy is asked once:

    policy.choose(now_s, waiting, running, free) -> Decision(gpus={progress: count, ...}, again_s=inf)

`waiting` are the jobs that hold nothing, in the order of arrival: a job that was stopped stands at its old place.
`running` are those that hold GPUs, in the order in which they got their first; `free` GPUs are held by nobody. All are
`Progress` objects, for reading only. The decision names each job whose number of GPUs changes: from 0 it starts, to 0
it is stopped and waits, and any other change is a restart on more or fewer. Who is not named keeps what he has.
`again_s` asks for an event at that time, for rules that depend on time alone.

A job that was granted fewer than its least GPUs holds them without working, as one does whose ranks are placed one by
one. If nobody works, nobody is to come, and the policy asks for no later event, nothing will ever happen again:
`Deadlock` says who holds what.

A restart costs `overhead_s`, in which the job holds its GPUs and does no work; its first start costs nothing. It
goes on from its last checkpoint. One is written after each `checkpoint_s` of work: 0 loses nothing, `math.inf` all.
"""

import bisect
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from parallel_lab.systems.scheduling.cluster import Job, Progress, Run, Sample, Schedule, Speed, linear


class Decision(NamedTuple):
    """The GPUs of each job that is to hold another number of them from now on, and when to ask again at the latest."""

    gpus: Mapping[Progress, int]
    again_s: float = math.inf


class Policy(Protocol):
    """What decides who holds GPUs: a pure function of what it is shown."""

    @property
    def name(self) -> str:
        """How it is called in tables."""
        ...

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """Who is to hold how many GPUs from now on."""
        ...


class Deadlock(RuntimeError):
    """Nothing will ever happen again, and jobs are not done."""


def simulate(
    jobs: Iterable[Job],
    gpus: int,
    policy: Policy,
    *,
    overhead_s: float = 0.0,
    checkpoint_s: float = 0.0,
    speed: Speed = linear,
) -> Schedule:
    """Runs all jobs to their ends on so many GPUs.

    Args:
        jobs: in any order.
        gpus: of the cluster.
        policy: decides at each event.
        overhead_s: what a restart costs.
        checkpoint_s: the work between two checkpoints.
        speed: the pace of a job on a number of GPUs, 1 on all that it asks for.

    Raises:
        ValueError: a job can never run, two have one name, or the policy grants what is not there.
        Deadlock: jobs are left and nothing will ever happen again.
    """
    coming = deque(sorted(jobs, key=lambda job: job.arrival_s))
    _possible(coming, gpus)
    cluster = _Cluster(Schedule(policy.name, gpus), overhead_s, checkpoint_s, speed)
    again_s = math.inf
    while coming or cluster.waiting or cluster.running:
        arrival_s = coming[0].arrival_s if coming else math.inf
        now_s = min(arrival_s, again_s, min((one.end_s for one in cluster.running), default=math.inf))
        if now_s == math.inf:
            raise Deadlock(f"{policy.name}: nobody works and nobody is to come; {cluster}")
        cluster.advance(now_s)
        while coming and coming[0].arrival_s <= now_s:
            cluster.admit(coming.popleft())
        decision = policy.choose(now_s, cluster.waiting, cluster.running, cluster.free)
        if decision.again_s <= now_s:
            raise ValueError(f"{policy.name} asks at {now_s} s to be asked at {decision.again_s} s, which has passed")
        cluster.apply(decision.gpus)
        again_s = decision.again_s
    return cluster.schedule


def _possible(jobs: Iterable[Job], gpus: int) -> None:
    names = set()
    for job in jobs:
        if job.least > gpus:
            raise ValueError(f"job {job.name} needs {job.least} GPUs, and the cluster has {gpus}")
        if job.name in names:
            raise ValueError(f"two jobs have the name {job.name}")
        names.add(job.name)


class _Cluster:
    """Who waits and who holds what, at one moment."""

    def __init__(self, schedule: Schedule, overhead_s: float, checkpoint_s: float, speed: Speed):
        self.schedule, self.overhead_s, self.checkpoint_s, self.speed = schedule, overhead_s, checkpoint_s, speed
        self.now_s, self.free = 0.0, schedule.gpus
        self.waiting: list[Progress] = []
        self.running: list[Progress] = []
        self._order: dict[Progress, int] = {}  # of arrival

    def __str__(self) -> str:
        held = [f"{one.job.name} holds {one.gpus} of {one.job.least}" for one in self.running]
        return ", ".join([*held, f"{len(self.waiting)} wait, {self.free} GPUs are free"])

    def advance(self, now_s: float) -> None:
        """Everyone works until now; who is done leaves."""
        for one in self.running:
            one.served_gpu_s += one.gpus * (now_s - self.now_s)
            if one.pace:
                one.left_s = min(one.left_s, (one.end_s - now_s) * one.pace)  # not less work while it restarts
        self.now_s = now_s
        done = [one for one in self.running if one.end_s <= now_s]
        if not done:
            return
        self.running = [one for one in self.running if one.end_s > now_s]
        for one in done:
            self._close(one)
            self.free += one.gpus
            self.schedule.ends[one.job.name] = now_s

    def admit(self, job: Job) -> None:
        """A job has arrived: it waits, behind all others."""
        one = Progress(job, job.duration_s, since_s=self.now_s)
        self._order[one] = len(self._order)
        self.waiting.append(one)

    def apply(self, gpus: Mapping[Progress, int]) -> None:
        """Carries out a decision."""
        for one, count in gpus.items():
            if not 0 <= count <= one.job.gpus:
                raise ValueError(f"{self.schedule.policy} grants {one.job.name} {count} GPUs of {one.job.gpus}")
            if count != one.gpus:
                self._grant(one, count)
        if self.free < 0:
            raise ValueError(f"{self.schedule.policy} grants {-self.free} GPUs more than the cluster has")
        held = self.schedule.gpus - self.free
        self.schedule.samples.append(Sample(self.now_s, len(self.waiting), len(self.running), held))

    def _grant(self, one: Progress, count: int) -> None:
        """From now on the job holds `count` GPUs, and goes on from its last checkpoint if it had worked."""
        self._close(one)
        self._move(one, count)
        if one.pace:
            one.left_s = one.job.duration_s - self._saved_s(one.job.duration_s - one.left_s)
        self.free += one.gpus - count
        one.gpus, one.since_s, one.pace, one.end_s = count, self.now_s, self.speed(one.job, count), math.inf
        if one.pace:
            one.end_s = self.now_s + (self.overhead_s if one.starts else 0.0) + one.left_s / one.pace
            one.starts += 1

    def _move(self, one: Progress, count: int) -> None:
        """From the line to those who hold, or back to its old place in the line."""
        if not one.gpus:
            self.waiting.remove(one)
            self.running.append(one)
        elif not count:
            self.running.remove(one)
            bisect.insort(self.waiting, one, key=self._order.__getitem__)

    def _saved_s(self, done_s: float) -> float:
        """How much of the work stands in a checkpoint."""
        if self.checkpoint_s == 0:
            return done_s
        return 0.0 if self.checkpoint_s == math.inf else done_s // self.checkpoint_s * self.checkpoint_s

    def _close(self, one: Progress) -> None:
        """Notes the stretch that ends now."""
        if one.gpus and one.since_s < self.now_s:
            self.schedule.runs.append(Run(one.job, one.since_s, self.now_s, one.gpus))
