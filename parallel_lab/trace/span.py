"""What happened, real or simulated: spans of time on the lanes of each rank, and the bytes held over time.

Conventions, used everywhere in the course: bytes and messages are counted at the rank that *sends* them. A built-in
collective of PyTorch is one span, and is charged what a ring sends per rank, an all-to-all its direct messages
(`network.ring_cost`). Times are seconds since the trace began; on one machine all ranks read the same monotonic clock.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from parallel_lab.plan import COMPUTE, NAMES, Op, Plan

MARK = "mark"  # the lane of spans that are notes: neither computing nor communication
CUT_SHARE = 0.25  # how far what never ended is drawn beyond the last thing that is known, as a share of the time before
SHORTEST_CUT_S = 1e-3  # at least, where nothing came before


class Span(NamedTuple):
    """One thing that one rank did.

    Its fields are those of `plan.Op` and what is measured. A PyTorch collective has its own name as kind
    (`all_reduce`) and lane `send`.
    """

    rank: int
    kind: str
    start_s: float  # when it was issued
    end_s: float  # when it was complete
    part: int = -1
    mb: int = 0
    peer: int = -1
    lane: str = COMPUTE
    bytes: int = 0  # the payload of the call, sent or received
    sent_bytes: int = 0  # what left this rank because of it
    sent_messages: int = 0
    wait_s: float = 0.0  # how long of it the rank's own thread stood still
    group: str = ""  # the name of the process group; empty for the default group
    line: str = ""  # the learner's line that asked for it: `In[3], line 16` in a run's trace, `file:number` on the rank
    axis: str = ""
    phase: str = ""
    round: int = 0
    ended: bool = True  # whether its end was seen; nobody waited for a message, or the run was cut short

    @property
    def name(self) -> str:
        """The kind in words: `forward` for `F`."""
        return NAMES.get(self.kind, self.kind)

    @property
    def cut(self) -> bool:
        """Whether the run was cut short while it was still going on; see `Trace.cut_short`."""
        return not self.ended and self.end_s > self.start_s

    @property
    def op(self) -> Op:
        """The step of a plan that this span carried out."""
        return Op(self.rank, self.kind, self.part, self.mb, self.peer, self.lane, self.axis, self.phase, self.round)


class Sample(NamedTuple):
    """Bytes that a rank held at a time, of one kind (`parameters`, `activations`; `all` for the sum)."""

    rank: int
    time_s: float
    bytes: int
    kind: str = "all"


def _covered_s(spans: Iterable[Span]) -> float:
    """The time that at least one span covers."""
    covered_s, until_s = 0.0, -math.inf
    for start_s, end_s in sorted((s.start_s, s.end_s) for s in spans):
        covered_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return covered_s


def _window_s(spans: Iterable[Span]) -> float:
    """From the first start to the last end; 0 of no spans."""
    ends = [(s.start_s, s.end_s) for s in spans]
    return max(end for _, end in ends) - min(start for start, _ in ends) if ends else 0.0


@dataclass(frozen=True)
class Trace:
    """Everything that `ranks` ranks did. Sums such as `bytes_sent` count only what was kept."""

    ranks: int  # how many there were
    spans: tuple[Span, ...]  # in the order in which each rank issued them
    memory: tuple[Sample, ...] = ()  # in time order per rank; empty where nothing was measured
    simulated: bool = False  # whether the times come from a cost model and not from a clock
    left_out: int = 0  # how many spans and samples were not kept, because a recorder had reached its limit

    @property
    def duration_s(self) -> float:
        """From the first start to the last end."""
        return _window_s(self.spans)

    def cut_short(self) -> "Trace":
        """The same of a run that did not come to its end: what had not ended lasts a little longer than all else.

        How long the ranks were left waiting says nothing of the program, and would hide what came before. Whether a
        call that never ended had sent something is not known: it counts as nothing.
        """
        known_s = [time_s for s in self.spans for time_s in (s.start_s, s.end_s)]
        if not known_s:
            return self
        end_s = max(known_s) + max(CUT_SHARE * (max(known_s) - min(known_s)), SHORTEST_CUT_S)
        spans = tuple(s if s.ended else s._replace(end_s=end_s, sent_bytes=0, sent_messages=0) for s in self.spans)
        return replace(self, spans=spans)

    def of(self, rank: int, lane: str | None = None) -> list[Span]:
        """The spans of one rank, on one lane or on all, in the order of issue."""
        self._check(rank)
        return [s for s in self.spans if s.rank == rank and lane in (None, s.lane)]

    def _check(self, rank: int) -> None:
        if not 0 <= rank < self.ranks:
            raise ValueError(f"rank {rank}: this trace has ranks 0 to {self.ranks - 1}")

    def bytes_sent(self, rank: int, axis: str | None = None) -> int:
        """Bytes that left `rank`, on one axis of the mesh or on all; the axis of the default group is empty."""
        return sum(s.sent_bytes for s in self.of(rank) if axis in (None, s.axis))

    def messages(self, rank: int, axis: str | None = None) -> int:
        """Messages that left `rank`, on one axis of the mesh or on all; the axis of the default group is empty."""
        return sum(s.sent_messages for s in self.of(rank) if axis in (None, s.axis))

    def busy_s(self, rank: int, lane: str = COMPUTE) -> float:
        """Seconds during which at least one span of `lane` ran on `rank`."""
        return _covered_s(self.of(rank, lane))

    def window_s(self, rank: int, lane: str = COMPUTE) -> float:
        """The rank's own window: from the first start to the last end of its spans on `lane`."""
        return _window_s(self.of(rank, lane))

    def idle_s(self, rank: int, lane: str = COMPUTE) -> float:
        """Seconds of the rank's own window in which nothing ran on `lane`.

        Of several steps with no barrier between them, the window holds them all. That is where zero-bubble schedules
        gain: a rank may begin its next step while others end the last one, which `bubble()` of one step cannot see.
        """
        return self.window_s(rank, lane) - self.busy_s(rank, lane)

    def bubble(self, *, own: bool = False) -> float:
        """The share of all ranks' time in which nothing was computed: 1 - busy / (ranks · duration), from 0 to 1.

        With `own` it is the idle share of the longest window that a rank has of its own, from its first start to its
        last end: the rate (cost - m (T_F + T_I + T_W)) / cost of Qi et al. 2024, "Zero Bubble Pipeline Parallelism".
        This leaves out what a rank waits before its first pass, which it does once in a row of steps without barrier.
        """
        if own:
            longest = max(range(self.ranks), key=self.window_s, default=0)
            return self.idle_s(longest) / (self.window_s(longest) or 1.0)
        if not self.duration_s:
            return 0.0
        busy_s = sum(self.busy_s(rank) for rank in range(self.ranks))
        return 1 - busy_s / (self.ranks * self.duration_s)

    def overlap_s(self, rank: int) -> float:
        """Seconds in which `rank` computed and communicated at the same time.

        Those of the one and those of the other, less those in which at least one ran. Notes (lane `mark`) are neither.
        """
        spans = [s for s in self.of(rank) if s.lane != MARK]
        communicate = [s for s in spans if s.lane != COMPUTE]
        return self.busy_s(rank) + _covered_s(communicate) - _covered_s(spans)

    def exposed_s(self, rank: int) -> float:
        """Seconds in which `rank` communicated, or waited to, and computed nothing."""
        return _covered_s(s for s in self.of(rank) if s.lane != MARK) - self.busy_s(rank)

    def peak_bytes(self, rank: int) -> int:
        """The most bytes that `rank` held at once, all kinds together; 0 where memory was not sampled."""
        return max((sum(held.values()) for _, held in self.held_bytes(rank)), default=0)

    def held_bytes(self, rank: int) -> Iterator[tuple[float, dict[str, int]]]:
        """For each memory sample of `rank`: its time in seconds, and the bytes held from then on, by kind."""
        self._check(rank)
        held: dict[str, int] = {}
        for sample in self.memory:
            if sample.rank == rank:
                held = {**held, sample.kind: sample.bytes}
                yield sample.time_s, held

    def plan(self) -> Plan:
        """The plan that was carried out: each rank's spans as ops, in the order of issue."""
        return Plan.of((s.op for s in self.spans), ranks=self.ranks)
