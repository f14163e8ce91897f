"""How well a training uses its machines, from one recorded `Trace`: what a step does, and what its ranks wait for.

Steps are notes of the kind `step` on the lane `mark`, as `with span("step", part=number, lane="mark")` makes them.

    tokens/s    tokens of the global batch / time of a step
    MFU         FLOPs of the *model* per token * tokens/s / (n * peak)          Chowdhery et al. 2022, section 4.1
    HFU         the same with the FLOPs that the hardware does, recomputation included: at most 4/3 of MFU
    strong      T(1) / (n T(n))  one problem over n ranks                       Amdahl 1967
    weak        T(1) / T(n)      n times the problem over n ranks               Gustafson 1988
    busbw       S / T * 2 (n-1)/n of an all-reduce, to be held against a link   nccl-tests; `network.bandwidth`
    exposed     a rank communicates, or waits to, and computes nothing
    delay       from the first rank that joins a collective to the last; all but the last wait for it
    straggler   the longest computing of a rank / the median rank's, step by step
    tail        p99 / p50 of the steps; below 100 steps p99 is the longest one
    time to     until the held-out loss stays at or below a target

A step's time is the mean over the recorded window, waits and all: (last end - first start) / steps. The median of
steps leaves out the slow ones, and so promises more tokens a day than there will be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from typing import NamedTuple

from parallel_lab.model.budget import utilization
from parallel_lab.network import COLLECTIVES, bus_bandwidth
from parallel_lab.plan import COMPUTE
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK
from parallel_lab.trace.units import format_bytes, format_seconds, format_share, table

STEP = "step"


class Work(NamedTuple):
    """What a step is for; a trace does not know it."""

    tokens: int  # of the global batch
    model_flops: float  # per token, forward and backward
    hardware_flops: float  # per token, with what is computed again
    peak_flops_per_s: float  # of one rank, in the dtype that multiplies


class Joined(NamedTuple):
    """One collective, over all ranks of a trace."""

    kind: str
    bytes: int
    starts_s: tuple[float, ...]  # by rank
    ends_s: tuple[float, ...]

    @property
    def delay_s(self) -> float:
        """From the first rank that joined to the last."""
        return max(self.starts_s) - min(self.starts_s)

    @property
    def last_rank(self) -> int:
        """Who joined last."""
        return self.starts_s.index(max(self.starts_s))

    @property
    def bus_bytes_per_s(self) -> float:
        """The bus bandwidth once all had joined, so that a straggler does not count as a slow network."""
        return bus_bandwidth(self.kind, len(self.starts_s), self.bytes, max(self.ends_s) - max(self.starts_s))


@dataclass(frozen=True)
class Speed:
    """One trace, judged. Times are per step, means over ranks where a rank has its own."""

    simulated: bool
    steps: int
    step_s: float
    p50_s: float
    p99_s: float
    tokens_per_s: float
    mfu: float
    hfu: float
    exposed: float  # share of the step
    delay_s: float  # of its collectives together
    straggler: float  # the longest over the median computing, the median of the steps
    sent_bytes: float  # per rank

    def __str__(self) -> str:
        """The table, and whether it was measured or simulated."""
        rows = {
            "step": format_seconds(self.step_s),
            "p50, p99": f"{format_seconds(self.p50_s)}, {format_seconds(self.p99_s)}",
            "tokens/s": f"{self.tokens_per_s:,.0f}",
            "MFU, HFU": f"{format_share(self.mfu)}, {format_share(self.hfu)}",
            "exposed communication": format_share(self.exposed),
            "synchronization delay": format_seconds(self.delay_s),
            "straggler, max/median": f"{self.straggler:.2f}",
            "sent by a rank": format_bytes(self.sent_bytes),
        }
        clock = "simulated" if self.simulated else "measured"
        return table({f"{self.steps} steps, {clock}": list(rows), "": list(rows.values())})


def speed(trace: Trace, work: Work) -> Speed:
    """All of it from one trace.

    Raises:
        ValueError: the trace has no steps, or not the same ones on all ranks.
    """
    marks = steps(trace)
    count, ranks = len(marks[0]), range(trace.ranks)
    trace = within(trace, min(row[0].start_s for row in marks), max(row[-1].end_s for row in marks))
    window_s = trace.duration_s
    took = [_length_s(each) for each in zip(*marks, strict=True)]
    step_s = window_s / count
    rate = work.tokens / step_s
    busy = zip(*(_computing_s(trace, rank, marks[rank]) for rank in ranks), strict=True)
    return Speed(
        simulated=trace.simulated,
        steps=count,
        step_s=step_s,
        p50_s=percentile(took, 50),
        p99_s=percentile(took, 99),
        tokens_per_s=rate,
        mfu=utilization(work.model_flops, rate, trace.ranks, work.peak_flops_per_s),
        hfu=utilization(work.hardware_flops, rate, trace.ranks, work.peak_flops_per_s),
        exposed=sum(map(trace.exposed_s, ranks)) / trace.ranks / window_s,
        delay_s=sum(each.delay_s for each in joined(trace)) / count,
        straggler=median(straggler_ratio(each) for each in busy),
        sent_bytes=sum(map(trace.bytes_sent, ranks)) / trace.ranks / count,
    )


def steps(trace: Trace) -> list[list[Span]]:
    """The notes of the steps, by rank.

    Raises:
        ValueError: there are none, or not equally many on all ranks.
    """
    found = [[s for s in trace.of(rank, MARK) if s.kind == STEP] for rank in range(trace.ranks)]
    if not found[0] or len({len(row) for row in found}) > 1:
        counts = ", ".join(str(len(row)) for row in found)
        raise ValueError(f"steps by rank: {counts}. Put each step of each rank in: with span('step', lane='mark')")
    return found


def within(trace: Trace, start_s: float, end_s: float) -> Trace:
    """What began and ended between two moments: without the warm-up before, and what came after."""
    return replace(trace, spans=tuple(s for s in trace.spans if start_s <= s.start_s and s.end_s <= end_s))


def _length_s(one_step: Sequence[Span]) -> float:
    return max(s.end_s for s in one_step) - min(s.start_s for s in one_step)


def _computing_s(trace: Trace, rank: int, marks: Sequence[Span]) -> list[float]:
    """Seconds that a rank computed in each step; spans of computing do not overlap, but for nested ones."""
    spans = trace.of(rank, COMPUTE)
    alone = Trace(trace.ranks, tuple(spans))
    return [within(alone, mark.start_s, mark.end_s).busy_s(rank) for mark in marks]


def joined(trace: Trace) -> list[Joined]:
    """The collectives of the default group, each with its parts on all ranks, which call them in one order.

    Raises:
        ValueError: the ranks did not call the same ones.
    """
    own = [[s for s in trace.of(r) if s.kind in COLLECTIVES and not s.group] for r in range(trace.ranks)]
    names = [[s.kind for s in row] for row in own]
    if any(row != names[0] for row in names):
        raise ValueError("the ranks did not call the same collectives of the default group: there is nothing to match")
    rows = zip(*own, strict=True)
    return [Joined(r[0].kind, r[0].bytes, tuple(s.start_s for s in r), tuple(s.end_s for s in r)) for r in rows]


def straggler_ratio(seconds: Sequence[float]) -> float:
    """The longest over the median; of two ranks the median lies between them."""
    middle = median(seconds)
    return max(seconds) / middle if middle else math.nan


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the least value that is at least as large as `percent` of all.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values: there is no percentile")
    return sorted(values)[max(1, math.ceil(percent / 100 * len(values))) - 1]


def strong_efficiency(one_s: float, n_s: float, n: int) -> float:
    """Of one problem, T(1) / (n T(n)): the speed-up by rank."""
    return one_s / (n * n_s)


def weak_efficiency(one_s: float, n_s: float) -> float:
    """Of a problem that grows with the ranks, T(1) / T(n)."""
    return one_s / n_s


def amdahl(serial: float, n: int) -> float:
    """The speed-up of one problem whose share `serial` no rank can share: 1 / (serial + (1 - serial)/n)."""
    return 1 / (serial + (1 - serial) / n)


def gustafson(serial: float, n: int) -> float:
    """The scaled speed-up, n - (n - 1) serial, with `serial` the share of the time *on n ranks* that is serial."""
    return n - (n - 1) * serial


def serial_share(speedup: float, n: int) -> float:
    """The share that a measured speed-up implies, Amdahl's law turned around (Karp and Flatt 1990).

    Where it grows with n, it is not serial work but overhead that grows.

    Raises:
        ValueError: one rank tells nothing.
    """
    if n < 2:
        raise ValueError("the share is found from at least 2 ranks")
    return (1 / speedup - 1 / n) / (1 - 1 / n)


def time_to(target: float, seconds: Sequence[float], losses: Sequence[float]) -> float:
    """When the loss was at or below `target` and stayed there; infinity where it did not.

    The first crossing would reward noise: a single lucky evaluation is no result.
    """
    when = math.inf
    for below, points in groupby(zip(seconds, losses, strict=True), lambda point: point[1] <= target):
        when = next(points)[0] if below else math.inf
    return when
