"""Watts that wait: a straggler burns everyone's.

A rank that waits in a collective draws more than an idle one: NCCL's kernel spins on the GPU, and the host polls. So a
rank that comes late by some seconds costs (n - 1) times that wait, at the power of waiting.
"""

from collections import defaultdict
from dataclasses import dataclass

from parallel_lab.runtime import Run
from parallel_lab.systems.resilience.stragglers import meetings_of
from parallel_lab.trace import Trace


@dataclass(frozen=True)
class Burned:
    """What the ranks of a trace took, by a model of two powers.

    Attributes:
        working_s: of each rank, outside collectives that wait for somebody.
        waiting_s: of each rank, until the last one came.
        busy_w, waiting_w: the powers.
    """

    working_s: dict[int, float]
    waiting_s: dict[int, float]
    busy_w: float
    waiting_w: float

    @property
    def waiting_j(self) -> float:
        """Energy of all waits."""
        return self.waiting_w * sum(self.waiting_s.values())

    @property
    def joules(self) -> float:
        """All of it."""
        return self.busy_w * sum(self.working_s.values()) + self.waiting_j

    @property
    def share(self) -> float:
        """The share that went into waiting."""
        return self.waiting_j / self.joules


def burned(source: Run | Trace, busy_w: float, waiting_w: float) -> Burned:
    """The energy of a run's ranks: their waits for the last rank of each collective, and the rest of their time."""
    trace = source.trace if isinstance(source, Run) else source
    waits: dict[int, float] = defaultdict(float)
    for meeting in meetings_of(trace):
        for rank in meeting.called_s:
            waits[rank] += meeting.wait_s(rank)
    waiting = {rank: waits[rank] for rank in range(trace.ranks)}
    working = {rank: trace.duration_s - waiting[rank] for rank in range(trace.ranks)}
    return Burned(working, waiting, busy_w, waiting_w)


def straggler_share(n: int, step_s: float, late_s: float, waiting: float = 1.0) -> float:
    """The share of a step's energy that waits for one late rank.

    n - 1 ranks work for `step_s` and wait for `late_s` at `waiting` times the working power; one works for both.
    """
    waited = (n - 1) * late_s * waiting
    return waited / (waited + n * step_s + late_s)
