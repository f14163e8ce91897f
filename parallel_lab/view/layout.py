"""Where each span goes: one band per rank, in it a lane for computing and one for communicating, time across.

The layout knows nothing of how it is drawn; the static figure and the interactive canvas share it. A plan has no times:
each of its ops takes one slot, as early as it can.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parallel_lab.network import Link, Nodes
from parallel_lab.plan import COMPUTE, LANES, NAMES, RECEIVING, RECV, SEND, Plan
from parallel_lab.plan.check import Waits
from parallel_lab.trace import Span, Trace

MOST_ROWS = 6  # spans of one lane that run at once are drawn below each other; the last row takes what is left


def trace_of(source) -> tuple[Trace, bool]:
    """The trace of a `Trace`, a `Plan`, a run or a launch's error; and whether its times are slots, not seconds.

    Raises:
        TypeError: `source` is none of these.
    """
    source = getattr(source, "trace", source)
    if isinstance(source, Plan):
        return unit_trace(source), True
    if isinstance(source, Trace):
        return source, False
    raise TypeError(f"expected a run, a trace, a plan or what launch raised, got {type(source).__name__}")


def unit_trace(plan: Plan) -> Trace:
    """`plan` on a grid: an op starts once its lane is free and all it needs is over, and takes one slot.

    Raises:
        PlanError: ops wait for each other, or for an op that is not in the plan.
    """
    waits = Waits.of(plan)
    ends = [0] * (len(plan) + 1)  # the last is for ops with none ahead
    for i in waits.order():
        ends[i] = 1 + max([ends[waits.ahead[i]], *(ends[j] for j in waits.before[i])])
    steps = sorted(zip(plan, ends, strict=False), key=lambda step: (step[0].rank, step[1]))
    spans = tuple(Span(**op._asdict(), start_s=end - 1, end_s=end) for op, end in steps)
    return Trace(plan.ranks, spans, simulated=True)


def band_names(trace: Trace, names: Sequence[str] | None) -> Sequence[str]:
    """`names`, which replace `rank 0`, `rank 1` and so on.

    Raises:
        ValueError: there is not one name per rank.
    """
    if names is None:
        return [f"rank {rank}" for rank in range(trace.ranks)]
    if len(names) != trace.ranks:
        raise ValueError(f"{len(names)} names for {trace.ranks} ranks: expected one per rank")
    return names


class Box(NamedTuple):
    """One rectangle: a span, or several (`spans`) of one kind, too narrow to tell apart or too many at once."""

    rank: int  # as in `trace.Span`, as are lane and kind
    lane: str
    kind: str
    row: int  # 0 for the first row of the lane; further rows hold what runs at the same time
    start_s: float  # in seconds (slots, for a plan), as is end_s
    end_s: float
    label: str  # what is written inside where there is room; may be empty
    spans: int  # how many spans it stands for
    first: int  # the place of the first of them in `trace.spans`
    moves_s: float  # when a message began to move; before, it waited for its turn or its sender. Else the start
    cut: bool  # whether the run was cut short before it had ended


@dataclass(frozen=True)
class Layout:
    """Boxes, and what they need to be drawn."""

    ranks: int  # the number of bands
    start_s: float  # the first start
    end_s: float  # the last end
    rows: dict[str, int]  # for each lane in use, from top to bottom, how many rows it has
    boxes: tuple[Box, ...]  # ordered by rank, lane and start

    @property
    def duration_s(self) -> float:
        """From the first start to the last end."""
        return self.end_s - self.start_s


def lay_out(trace: Trace, columns: int, link: Link | Nodes | None = None) -> Layout:
    """Places the spans of `trace` for a drawing `columns` pixels wide; spans below a pixel are merged by kind.

    Over `link` a message moves for the last `link.seconds` of its span.
    """
    start_s, end_s = extent(trace)
    slack_s = 1e-9 * (end_s - start_s)
    labels = _labels(trace.spans)
    rows: dict[str, int] = {}
    boxes: list[Box] = []
    for (rank, lane), indices in by_lane(trace).items():
        placed = pack([trace.spans[i] for i in indices], slack_s)
        rows[lane] = max(rows.get(lane, 1), 1 + max(placed))
        for i, row in zip(indices, placed, strict=True):
            s = trace.spans[i]
            moves_s = s.start_s
            if link and (s.kind == "send" or s.kind in RECEIVING):
                moves_s = max(moves_s, s.end_s - link.among((s.rank, s.peer)).seconds(s.bytes))
            boxes.append(Box(rank, lane, s.kind, row, s.start_s, s.end_s, labels[i], 1, i, moves_s, s.cut))
    boxes = _crowded(boxes, slack_s)
    in_order = {lane: rows[lane] for lane in sorted(rows, key=lane_order)} or {COMPUTE: 1}
    return Layout(trace.ranks, start_s, end_s, in_order, tuple(_merged(boxes, (end_s - start_s) / columns)))


def extent(trace: Trace) -> tuple[float, float]:
    """First start and last end of the spans and memory samples, in seconds; (0, 0) for an empty trace."""
    times_s = [(s.start_s, s.end_s) for s in trace.spans] + [(m.time_s, m.time_s) for m in trace.memory]
    return min((start for start, _ in times_s), default=0.0), max((end for _, end in times_s), default=0.0)


def lane_name(lane: str, lanes: Iterable[str]) -> str:
    """What to call `lane` beside a band; a collective sends and receives, so it has the word for both."""
    if lane == SEND and RECV not in lanes:
        return "communicate"
    return {RECV: "receive"}.get(lane, lane)


def lane_order(lane: str) -> tuple[int, str]:
    """A key to sort lanes by: those of a plan first, in its order, then others by name."""
    return (LANES.index(lane) if lane in LANES else len(LANES)), lane


def by_lane(trace: Trace) -> dict[tuple[int, str], list[int]]:
    """The indices of the spans of each rank and lane, in order of start, the longer first."""
    lanes: dict[tuple[int, str], list[int]] = {}
    for i, s in sorted(enumerate(trace.spans), key=lambda pair: (pair[1].rank, pair[1].start_s, -pair[1].end_s)):
        lanes.setdefault((s.rank, s.lane), []).append(i)
    return lanes


def pack(spans: Sequence[Span], slack_s: float = 0.0, most: int | None = MOST_ROWS) -> list[int]:
    """A row for each of `spans` (sorted by start) so that spans of one row do not overlap.

    Where more than `most` run at once, the last row takes all that are left; None sets no limit.
    """
    ends: list[float] = []
    rows = []
    for s in spans:
        row = next((r for r, end_s in enumerate(ends) if end_s <= s.start_s + slack_s), len(ends))
        if row == most:
            row -= 1
        if row == len(ends):
            ends.append(s.end_s)
        ends[row] = max(ends[row], s.end_s)
        rows.append(row)
    return rows


def _crowded(boxes: Iterable[Box], slack_s: float) -> list[Box]:
    """Joins boxes of one kind that overlap in a last row, which took all that were left, and counts them."""
    latest: dict[tuple, int] = {}
    joined: list[Box] = []
    for box in boxes:
        key = box.rank, box.lane, box.kind
        at = latest.get(key, -1) if box.row == MOST_ROWS - 1 else -1
        if at >= 0 and box.start_s + slack_s < joined[at].end_s:
            count, end_s = joined[at].spans + 1, max(joined[at].end_s, box.end_s)
            joined[at] = joined[at]._replace(end_s=end_s, spans=count, label=f"{count} spans")
            continue
        if box.row == MOST_ROWS - 1:
            latest[key] = len(joined)
        joined.append(box)
    return joined


def _merged(boxes: Iterable[Box], pixel_s: float) -> list[Box]:
    """Joins boxes narrower than `pixel_s` with their neighbors of the same kind and row, less than a pixel away."""
    growing: dict[tuple, int] = {}
    merged: list[Box] = []
    for box in boxes:
        key = box.rank, box.lane, box.row, box.kind
        at = growing.pop(key, -1)
        if box.end_s - box.start_s >= pixel_s:  # what follows a wide box must not make it look longer than it was
            merged.append(box)
            continue
        if at >= 0 and box.start_s - merged[at].end_s < pixel_s:
            merged[at] = merged[at]._replace(end_s=max(merged[at].end_s, box.end_s), spans=merged[at].spans + 1)
            growing[key] = at
        else:
            growing[key] = len(merged)
            merged.append(box._replace(label=""))
    return merged


def counted_kinds(spans: Sequence[Span]) -> dict[str, str]:
    """For each kind whose spans a number tells apart, its field: `round` of a collective's algorithm, else `mb`.

    None where all is 0, and no collective of PyTorch.
    """
    rounds = {s.kind for s in spans if s.round}
    if not rounds and not any(s.mb for s in spans):
        return {}
    kinds = {s.kind for s in spans if s.mb or s.round or s.peer >= 0 or s.kind in NAMES}
    return {kind: "round" if kind in rounds else "mb" for kind in kinds}


def _labels(spans: Sequence[Span]) -> list[str]:
    """The number of each span, as text; the whole op where a rank works on several parts of a model."""
    counted = counted_kinds(spans)
    parts = {(s.rank, s.part) for s in spans if s.kind in NAMES}
    several = len(parts) > len({rank for rank, _ in parts})
    labels = []
    for s in spans:
        number = str(getattr(s, counted[s.kind])) if s.kind in counted else ""
        number = f"{s.part}{s.kind}{number}" if several and number and s.kind in NAMES else number
        labels.append("not ended" if s.cut else number)
    return labels
