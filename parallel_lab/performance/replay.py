"""What if? A recorded step as a plan, which the simulator runs again with one thing changed.

The pieces of a rank's time (`breakdown`) are the steps of its row: what it computed, cut wherever something was sent,
and what it sent. A step of the host waits for the communication that ended when the host went on; a collective or a
message waits for what the host did before it was called. With the recorded seconds the simulation ends when the run
ended; with others it says what would have been (Zhu, Phanishayee and Pekhimenko 2020, "Daydream", section 3, does the
same with GPU profiles).

What the trace does not show is not known: a need that cost no waiting, how a slower neighbor slows the memory, what a
host does earlier if it is not held up. So a price is a bound of a model, to be tried.
"""

from bisect import bisect_left, bisect_right
from collections import ChainMap
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from parallel_lab.network import COLLECTIVES, CostModel
from parallel_lab.performance.breakdown import (
    Joins,
    Piece,
    Stretch,
    keyed,
    last_joins,
    painted,
    settled,
    to_ns,
    windows,
)
from parallel_lab.plan import COMPUTE, RECEIVING, RECV, SEND, Op, Plan
from parallel_lab.simulate import simulate
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK

WAITING = ("straggler", "bubble", "exposed")  # parts in which the host does nothing
LOAD = "load"  # the lane of a loader that works beside the computation
SLACK_NS = 1  # of rounding


@dataclass
class Replay(CostModel):
    """A step that was recorded: its `plan`, and as a cost model what each op of it took.

    Attributes:
        plan: the ops in the order of the trace, and what each waits for.
        took_s: seconds of each op.
        part_of: to which part of the breakdown an op belongs; `exposed` of all communication.
        bytes_of: the payload of an op.
        step: the number of the step in the trace.
    """

    plan: Plan
    took_s: Mapping[Op, float]
    part_of: Mapping[Op, str]
    bytes_of: Mapping[Op, int]
    step: int = 0

    def seconds(self, op: Op) -> float:
        """What was recorded."""
        return self.took_s[op]

    def bytes(self, op: Op) -> int:
        """What was recorded."""
        return self.bytes_of.get(op, 0)

    def port(self, op: Op) -> str:
        """Its lane and its axis, which has a link of its own; messages and collectives do not hold each other up."""
        return port(op)

    def meeting(self, op: Op) -> Hashable:
        """A collective is the same on all ranks that have its number."""
        return op._replace(rank=0)

    def run(self) -> Trace:
        """The trace of the step in the simulator."""
        return simulate(self.plan, self)

    @property
    def step_s(self) -> float:
        """Seconds of the step in the simulator."""
        return self.run().duration_s

    def scaled(self, factors: Mapping[str, float], rank: int | None = None) -> "Replay":
        """The same with the seconds of some parts times a factor, on one rank or on all."""
        of = {op: factors.get(self.part_of[op], 1.0) if rank in (None, op.rank) else 1.0 for op in self.took_s}
        return replace(self, took_s={op: took * of[op] for op, took in self.took_s.items()})

    def host_s(self, rank: int) -> float:
        """Seconds in which `rank` kept others waiting or could have: all that is no communication."""
        return sum(took for op, took in self.took_s.items() if op.rank == rank and self.part_of[op] != "exposed")

    def beside(self, part: str) -> "Replay":
        """The same with the work of `part` on a lane of its own, a step ahead: nobody waits for it, it for nobody."""
        moved = {op: op._replace(lane=LOAD) for op in self.plan if self.part_of[op] == part}

        def ahead(op: Op) -> tuple[Op, ...]:
            """What `op` needs, where it is moved itself also what that needs."""
            needs = [n for need in self.plan.needs.get(op, ()) for n in (ahead(need) if need in moved else (need,))]
            return tuple(dict.fromkeys(needs))

        needs = {op: ahead(op) for op in self.plan if op not in moved}
        rows = tuple(tuple(moved.get(op, op) for op in row) for row in self.plan.rows)
        took, parts = ({moved.get(op, op): v for op, v in of.items()} for of in (self.took_s, self.part_of))
        return replace(self, plan=Plan(rows, needs), took_s=took, part_of=parts)


def port(op: Op) -> str:
    """What an op holds of its rank."""
    return f"{'collective' if op.kind in COLLECTIVES else op.lane} {op.axis}"


def replay(trace: Trace, step: int | None = None) -> Replay:
    """The recorded `step` as a plan with its costs; by default the step of median length.

    Raises:
        ValueError: there is no such step.
    """
    trace = settled(trace)
    of_ranks = [dict(windows(trace, rank)) for rank in range(trace.ranks)]
    common = sorted(set.intersection(*map(set, of_ranks)))
    if step is None and common:
        step = sorted(common, key=lambda k: sum(of[k][1] - of[k][0] for of in of_ranks))[len(common) // 2]
    if step is None or step not in common:
        raise ValueError(f"there is no step {step} on every rank; there are {common}")
    joins, numbers = last_joins(trace), {}
    rows = [_Row(trace, rank, of[step], joins, numbers) for rank, of in enumerate(of_ranks)]
    if trace.simulated:
        _tight(rows)
    sent = {op for row in rows for op in row.ops}
    kept = [[op for op in row.ops if op.kind != "recv" or op.sender() in sent] for row in rows]
    needs = {op: tuple(n for n in before if n in sent) for row in rows for op, before in row.needs.items()}
    plan = Plan.of((op for row in kept for op in row), needs, trace.ranks)
    every = list(chain.from_iterable(kept))
    took, parts, sizes = (ChainMap(*(getattr(row, name) for row in rows)) for name in ("took_s", "part_of", "bytes_of"))
    return Replay(plan, {op: took[op] for op in every}, {op: parts[op] for op in every}, dict(sizes), step)


class _Row:
    """The ops of one rank in one step, in the order in which they began, and what each needs."""

    def __init__(self, trace: Trace, rank: int, window: Stretch, joins: Joins, numbers: dict[Hashable, int]) -> None:
        self.rank, self.trace, self.joins = rank, trace, joins
        self.ops: list[Op] = []
        self.needs: dict[Op, tuple[Op, ...]] = {}
        self.took_s: dict[Op, float] = {}
        self.part_of: dict[Op, str] = {}
        self.bytes_of: dict[Op, int] = {}
        self.over: list[tuple[int, Op]] = []  # when communication was over that nobody has waited for
        self.free_s: dict[str, float] = {}  # when a port was free
        self.eager = False  # whether a simulated message was asked for when the pass of its part was over
        self.hosts: list[tuple[int, int, Op]] = []  # from, to, what the host did
        spans = [
            (key, s) for key, s in keyed(trace.of(rank), trace.simulated) if window[0] <= to_ns(s.start_s) < window[1]
        ]
        events = [(piece.start_ns, 1, place, piece) for place, piece in enumerate(self._pieces(window))]
        events += [(to_ns(s.start_s), 0, place, (key, s)) for place, (key, s) in enumerate(spans) if s.kind != "wait"]
        for _, _, place, what in sorted(events, key=lambda event: event[:3]):
            if isinstance(what, Piece):
                self._host(what, place)
            else:
                self._send(what[1], what[0], numbers.setdefault(what[0], len(numbers)))

    def _pieces(self, window: Stretch) -> list[Piece]:
        """What the host did in the window, cut where it sent something, and where a span begins or ends."""
        edges = {to_ns(edge) for s in self.trace.of(self.rank) if s.lane != MARK for edge in (s.start_s, s.end_s)}
        ordered, found = sorted(edges), []
        for start, end, part in painted(self.trace, self.rank, self.joins):
            start, end = max(start, window[0]), min(end, window[1])
            if part not in WAITING and start < end:
                inner = ordered[bisect_right(ordered, start) : bisect_left(ordered, end)]
                found += [Piece(a, b, part) for a, b in pairwise([start, *inner, end])]
        return found

    def _host(self, piece: Piece, place: int) -> None:
        op = Op(self.rank, piece.part, place)
        self.needs[op] = tuple(sent for end, sent in self.over if end <= piece.start_ns + SLACK_NS)
        self.over = [(end, sent) for end, sent in self.over if end > piece.start_ns + SLACK_NS]
        self.hosts.append((piece.start_ns, piece.end_ns, op))
        self._add(op, piece.part, (piece.end_ns - piece.start_ns) / 1e9)

    def _send(self, s: Span, key: Hashable, number: int) -> None:
        kind = "recv" if s.kind in RECEIVING else s.kind
        peer = -1 if kind in COLLECTIVES else s.peer
        op = Op(self.rank, kind, number, 0, peer, RECV if kind == "recv" else SEND, s.axis)
        # It has the port to itself once all have joined, and what was called before is over.
        joined_s = s.start_s if self.trace.simulated else self.joins.get(key, 0.0)
        began_s = max(s.start_s, joined_s, self.free_s.get(port(op), 0.0))
        self.needs[op] = self._ready(s, to_ns(s.start_s) == to_ns(self.free_s.get(port(op), -1.0)))
        self.free_s[port(op)] = s.end_s
        if kind != "send":
            self.over.append((to_ns(s.end_s), op))
        self.bytes_of[op] = s.bytes
        self._add(op, "exposed", 0.0 if kind == "recv" else max(0.0, s.end_s - began_s))

    def _ready(self, s: Span, blocked: bool) -> tuple[Op, ...]:
        """What the host did last before it asked for `s`.

        A simulated span begins when its port is free and not when it was asked for. If the first of a port began with
        the end of the pass of its part, as an all-reduce with that of its bucket's backward, so could the others.
        """
        before = tuple(op for _, _, op in self.hosts[-1:])
        if not self.trace.simulated:
            return before
        name = (s.part, s.mb, s.phase)
        passes = [c for c in self.trace.spans if c.lane == COMPUTE and (c.part, c.mb, c.phase) == name]
        if not blocked:
            self.eager = to_ns(s.start_s) == max((to_ns(c.end_s) for c in passes), default=-1)
        own = max((to_ns(c.end_s) for c in passes if c.rank == self.rank), default=-1)
        return tuple(op for _, end, op in self.hosts if end == own) or before if blocked and self.eager else before

    def _add(self, op: Op, part: str, took_s: float) -> None:
        self.ops.append(op)
        self.part_of[op], self.took_s[op] = part, took_s


def _tight(rows: Sequence[_Row]) -> None:
    """In a simulation without messages, who starts after a pause when one of another rank ends, waited for that one."""
    ended: dict[int, list[Op]] = {}
    for row in rows:
        for _, end, op in row.hosts:
            ended.setdefault(end, []).append(op)
    for row in rows:
        ends = [0, *(end for _, end, _ in row.hosts)]
        for before, (start, _, op) in zip(ends, row.hosts, strict=False):
            if start > before and not row.needs[op]:
                near = [other for at in (start - SLACK_NS, start, start + SLACK_NS) for other in ended.get(at, ())]
                row.needs[op] = tuple(other for other in near if other.rank != op.rank)
