"""Where the time of a training step goes: each moment of each rank belongs to one part, so the parts sum to the step.

The parts are those of what-if studies of real jobs (Lin et al. 2025, "Understanding stragglers in large model training
using what-if analysis") and of tools that read GPU profiles (HolisticTraceAnalysis: idle, compute, communication). A
moment takes the first name of this list that fits it:

    compute    a pass, a kernel, an update runs; communication that runs beside it is *overlapped*, and costs nothing
    data       the rank waits for its batch: a span of the kind `data`
    launch     a GPU waits for the host to launch the next kernel (`torch_profile` says by which rule)
    copy       memory is copied, and nothing else runs
    straggler  a collective was called, and a rank has not joined it yet
    bubble     a pipeline has nothing for this rank: the message that it waits for was not sent yet
    exposed    bytes are on their way, and the rank does nothing else
    other      nothing of all that: in a simulation never, in a run what nobody recorded (Python, the optimizer)

A span of computing in which the rank's thread stood still, as a tensor-parallel forward does, counts as computing only
where it did not. Times are whole nanoseconds, so that a sum is exact. In a simulated trace a wait is no span: an idle
rank whose next step is a collective waits for a straggler, every other one is in a bubble.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median
from typing import NamedTuple

from parallel_lab.network import COLLECTIVES
from parallel_lab.performance.stretches import Stretch, length, shared, to_ns, union, without
from parallel_lab.plan import COMPUTE, RECEIVING
from parallel_lab.runtime import Run
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK
from parallel_lab.trace.units import format_seconds, format_share, table

PARTS = ("compute", "data", "launch", "copy", "straggler", "bubble", "exposed", "other")
HOST_KINDS = ("data", "launch", "copy")  # spans of these kinds are the part of that name
STEP = "step"  # the kind of a note (lane `mark`) that says where a step begins and ends, and its number as `part`
PASSES = ("forward", "backward", "setup")  # the phases of a pipeline's messages; those inside a collective have others
LOSS = "loss"  # the phase of the collective by which a pipeline ends its step

Joins = dict[Hashable, float]  # by the name of a collective or message


class Piece(NamedTuple):
    """A stretch of a rank's time, and the part that it belongs to."""

    start_ns: int
    end_ns: int
    part: str


class Row(NamedTuple):
    """One step of one rank. `ns[part]` are nanoseconds, and `sum(ns.values()) == step_ns`."""

    rank: int
    step: int
    step_ns: int
    ns: Mapping[str, int]
    overlapped_ns: int  # communication beside computing: inside `ns["compute"]`


@dataclass(frozen=True)
class Breakdown:
    """The parts of each step of each rank.

    Attributes:
        rows: one for each rank and step.
        ranks: how many ranks there are.
        simulated: whether the times come from a model.
    """

    rows: tuple[Row, ...]
    ranks: int
    simulated: bool = False

    @classmethod
    def of(cls, source: Run | Trace) -> "Breakdown":
        """The parts of a run or a trace.

        A step is a note, `with span("step", part=number, lane="mark"): ...`, on each rank. A trace without such notes
        is one step, from its first start to its last end.

        Raises:
            ValueError: the trace has no spans.
        """
        trace = source.trace if isinstance(source, Run) else source
        if not trace.spans:
            raise ValueError("the trace has no spans: was it recorded (launch(record=True))?")
        trace = settled(trace)
        rows, joins = [], last_joins(trace)
        for rank in range(trace.ranks):
            pieces = painted(trace, rank, joins)
            both = _overlap(trace, rank, joins, pieces)
            for step, window in windows(trace, rank):
                ns: dict[str, int] = dict.fromkeys(PARTS, 0)
                for piece in pieces:
                    ns[piece.part] += length([piece[:2]], window)
                rows.append(Row(rank, step, window[1] - window[0], ns, length(both, window)))
        return cls(tuple(rows), trace.ranks, trace.simulated)

    def of_rank(self, rank: int) -> list[Row]:
        """The steps of one rank."""
        return [row for row in self.rows if row.rank == rank]

    @property
    def step_s(self) -> float:
        """Seconds of a step, the mean over ranks and steps."""
        return sum(row.step_ns for row in self.rows) / max(len(self.rows), 1) / 1e9

    def seconds(self, part: str, rank: int | None = None) -> float:
        """Seconds a step of `part` (or `overlapped`): the mean over the steps, of one rank or of all."""
        rows = self.rows if rank is None else self.of_rank(rank)
        return sum(row.overlapped_ns if part == "overlapped" else row.ns[part] for row in rows) / len(rows) / 1e9

    def share(self, part: str, rank: int | None = None) -> float:
        """The same as a share of the step, from 0 to 1."""
        rows = self.rows if rank is None else self.of_rank(rank)
        return self.seconds(part, rank) * len(rows) * 1e9 / (sum(row.step_ns for row in rows) or 1)

    def __str__(self) -> str:
        """A table: a line for each rank, its mean step and the parts that occur, in seconds and as shares."""
        shown = [part for part in (*PARTS, "overlapped") if self.seconds(part)]
        columns = {"rank": [str(rank) for rank in range(self.ranks)]}
        columns["step"] = [format_seconds(sum(self.seconds(p, r) for p in PARTS)) for r in range(self.ranks)]
        for part in shown:
            name = "(overlapped)" if part == "overlapped" else part
            columns[name] = [format_share(self.share(part, rank)) for rank in range(self.ranks)]
        return ("simulated, not measured\n" if self.simulated else "") + table(columns)

    __repr__ = __str__


def windows(trace: Trace, rank: int) -> list[tuple[int, Stretch]]:
    """The number and the stretch of each step of `rank`."""
    notes = [(s.part, (to_ns(s.start_s), to_ns(s.end_s))) for s in trace.of(rank, MARK) if s.kind == STEP]
    return notes or [(0, whole(trace))]


def whole(trace: Trace) -> Stretch:
    """From the first start to the last end."""
    return to_ns(min(s.start_s for s in trace.spans)), to_ns(max(s.end_s for s in trace.spans))


def painted(trace: Trace, rank: int, joins: Joins | None = None) -> list[Piece]:
    """The time of `rank` as pieces without gaps, each the part that it belongs to; `joins` are `last_joins(trace)`."""
    spans = [s for s in trace.of(rank) if s.lane != MARK]
    waits = _waits(trace, rank, last_joins(trace) if joins is None else joins)
    # Where the thread stood still, it did until what it waited for was there.
    still = union((s.end_s - s.wait_s, s.end_s) for s in spans if s.lane != COMPUTE and s.wait_s)
    computes = union((s.start_s, s.end_s) for s in spans if s.lane == COMPUTE and s.kind not in HOST_KINDS)
    claims = {
        "compute": without(computes, still),
        **{kind: union((s.start_s, s.end_s) for s in spans if s.kind == kind) for kind in HOST_KINDS},
        "straggler": union(waits["straggler"]),
        "bubble": union(waits["bubble"]),
        "exposed": union((s.start_s, s.end_s) for s in spans if communicates(s)),
    }
    free, pieces = [whole(trace)], []
    for part, claimed in claims.items():
        pieces += [Piece(*stretch, part) for stretch in shared(free, claimed)]
        free = without(free, claimed)
    return sorted(pieces + [Piece(*stretch, part) for stretch, part in _idle(trace, spans, free)])


def _waits(trace: Trace, rank: int, joins: Joins) -> dict[str, list[tuple[float, float]]]:
    """How long each collective of `rank` waited for the last to join, each receive for its sender."""
    found: dict[str, list[tuple[float, float]]] = {"straggler": [], "bubble": []}
    for key, s in keyed(trace.of(rank), trace.simulated):
        if s.kind == "wait":
            found["straggler"].append((s.start_s, s.end_s))
        elif key in joins and s.kind != "send" and not trace.simulated:
            pipelined = s.phase == LOSS or (s.kind in RECEIVING and s.phase in PASSES)
            found["bubble" if pipelined else "straggler"].append((s.start_s, min(joins[key], s.end_s)))
    return found


def communicates(s: Span) -> bool:
    """Whether a span is a message or a collective, and no work of the host or of a copy engine."""
    return s.lane not in (COMPUTE, MARK) and s.kind not in HOST_KINDS


def keyed(spans: Iterable[Span], simulated: bool = False) -> Iterator[tuple[Hashable, Span]]:
    """Each span of a rank that communicates, with a name that its other ends have as well.

    All ranks of a group call its collectives in the same order, so the place in this order names one on all of them.
    Simulated ones are not told apart by groups; they have the same names, and begin at the same moment.
    """
    seen: Counter[Hashable] = Counter()
    for s in spans:
        if not communicates(s):
            continue
        name: Hashable = (s.part, s.mb, s.axis, s.phase, s.round)
        if s.kind not in COLLECTIVES:
            name = ((s.rank, s.peer) if s.kind == "send" else (s.peer, s.rank), name)
        else:
            name = (s.kind, name, to_ns(s.start_s)) if simulated else (s.group, s.axis)
        way = (name, s.kind == "send")
        yield (name, seen[way]), s
        seen[way] += 1


def settled(trace: Trace) -> Trace:
    """`trace` with messages that end when they had arrived, and not when somebody looked at them.

    A rank notes the end of a message when it waits for it. Where it stood still meanwhile, that is the arrival; where
    it did not, the message is taken to have needed the median time of those. Where there are none, all stays.
    """
    messages = [(key, s) for rank in range(trace.ranks) for key, s in keyed(trace.of(rank)) if s.peer >= 0]
    sent = {key: s for key, s in messages if s.kind == "send"}
    received = {key: s for key, s in messages if s.kind in RECEIVING and key in sent}
    took = [s.end_s - max(s.start_s, sent[key].start_s) for key, s in received.items() if s.wait_s > 0]
    if trace.simulated or not took:
        return trace
    usual_s = max(0.0, median(took))
    arrived = {
        key: s.end_s if s.wait_s > 0 else min(s.end_s, max(s.start_s, sent[key].start_s + usual_s))
        for key, s in received.items()
    }
    ends = {s: max(s.start_s, min(s.end_s, arrived[key])) for key, s in messages if key in arrived}
    return replace(trace, spans=tuple(s._replace(end_s=ends.get(s, s.end_s)) for s in trace.spans))


def last_joins(trace: Trace) -> Joins:
    """When the last rank joined each collective, and when each message was sent."""
    joins: Joins = {}
    for rank in range(trace.ranks):
        for key, s in keyed(trace.of(rank), trace.simulated):
            if s.kind in COLLECTIVES or s.kind == "send":
                joins[key] = max(joins.get(key, -math.inf), s.start_s)
    return joins


def _idle(trace: Trace, spans: Sequence[Span], free: Iterable[Stretch]) -> Iterator[tuple[Stretch, str]]:
    """What an idle rank waits for: in a simulation a straggler or a pipeline; in a run nobody recorded it."""
    starts = sorted((to_ns(s.start_s), s.kind in COLLECTIVES) for s in spans)
    first, last = min(starts, default=(0,))[0], max((to_ns(s.end_s) for s in spans), default=0)
    pipelined = any(s.kind in RECEIVING and s.phase in PASSES for s in trace.spans)
    for stretch in free:
        if trace.simulated:
            after = bisect_left(starts, (stretch[1], False))
            meets = after < len(starts) and any(kind for at, kind in starts[after:] if at == starts[after][0])
            yield stretch, "straggler" if meets else "bubble"
        else:
            outside = stretch[1] <= first or stretch[0] >= last
            yield stretch, "bubble" if outside and pipelined else "other"


def _overlap(trace: Trace, rank: int, joins: Joins, pieces: Sequence[Piece]) -> list[Stretch]:
    """Where bytes were on their way beside computing."""
    sent = union((s.start_s, s.end_s) for s in trace.of(rank) if communicates(s) and s.kind != "wait")
    sent = without(sent, union(chain.from_iterable(_waits(trace, rank, joins).values())))
    return shared(sent, [piece[:2] for piece in pieces if piece.part == "compute"])
