"""Where each span goes: one band a rank, in it a lane for computing and one for communicating, time across.

The layout knows nothing of how it is drawn; the static figure and the interactive canvas share it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parallel_lab.plan import COMPUTE, LANES, NAMES, RECV, SEND
from parallel_lab.trace import Span, Trace

MOST_ROWS = 3  # spans of one lane that run at once are drawn below each other, up to so many


class Box(NamedTuple):
    """One rectangle: a span, or several (`spans`) of one kind too narrow to tell apart."""

    rank: int  # as in `trace.Span`, as are lane and kind
    lane: str
    kind: str
    row: int  # 0 for the first row of the lane; further rows hold what runs at the same time
    start_s: float  # in seconds (slots, for a plan), as is end_s
    end_s: float
    label: str  # what is written inside where there is room; may be empty
    spans: int  # how many spans it stands for
    first: int  # the place of the first of them in `trace.spans`


@dataclass(frozen=True)
class Layout:
    """Boxes, and what they need to be drawn.

    Attributes:
        ranks: the number of bands.
        start_s, end_s: the first start and the last end, in seconds.
        rows: for each lane in use, from top to bottom, how many rows it has.
        boxes: ordered by rank, lane and start.
    """

    ranks: int
    start_s: float
    end_s: float
    rows: dict[str, int]
    boxes: tuple[Box, ...]

    @property
    def duration_s(self) -> float:
        """From the first start to the last end."""
        return self.end_s - self.start_s


def lay_out(trace: Trace, columns: int) -> Layout:
    """Places the spans of `trace` for a drawing `columns` pixels wide; spans below a pixel are merged by kind."""
    start_s, end_s = extent(trace)
    pixel_s = (end_s - start_s) / max(columns, 1)
    labels = _labels(trace.spans)
    rows: dict[str, int] = {}
    boxes: list[Box] = []
    for (rank, lane), indices in by_lane(trace).items():
        placed = pack([trace.spans[i] for i in indices], slack_s=1e-9 * (end_s - start_s))
        rows[lane] = max(rows.get(lane, 1), 1 + max(placed))
        for i, row in zip(indices, placed, strict=True):
            s = trace.spans[i]
            boxes.append(Box(rank, lane, s.kind, row, s.start_s, s.end_s, labels[i], 1, i))
    in_order = {lane: rows[lane] for lane in sorted(rows, key=lane_order)}
    return Layout(trace.ranks, start_s, end_s, in_order or {COMPUTE: 1}, tuple(merge(boxes, pixel_s)))


def extent(trace: Trace) -> tuple[float, float]:
    """First start and last end of the spans and memory samples, in seconds; (0, 0) for an empty trace."""
    starts = [s.start_s for s in trace.spans] + [m.time_s for m in trace.memory]
    ends = [s.end_s for s in trace.spans] + [m.time_s for m in trace.memory]
    return min(starts, default=0.0), max(ends, default=0.0)


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

    Where more than `most` run at once, the row that is free first is used again; None sets no limit.
    """
    ends: list[float] = []
    rows = []
    for s in spans:
        row = next((r for r, end_s in enumerate(ends) if end_s <= s.start_s + slack_s), len(ends))
        if row == most:
            row = ends.index(min(ends))
        if row == len(ends):
            ends.append(s.end_s)
        ends[row] = max(ends[row], s.end_s)
        rows.append(row)
    return rows


def merge(boxes: Iterable[Box], pixel_s: float) -> list[Box]:
    """Joins boxes narrower than `pixel_s` with their neighbors of the same kind and row, less than a pixel away."""
    open_box: dict[tuple[int, str, int, str], int] = {}
    merged: list[Box] = []
    for box in boxes:
        key = (box.rank, box.lane, box.row, box.kind)
        at = open_box.get(key)
        last = merged[at] if at is not None else None
        narrow = box.end_s - box.start_s < pixel_s
        if last and at is not None and narrow and box.start_s - last.end_s < pixel_s:
            merged[at] = last._replace(end_s=max(last.end_s, box.end_s), spans=last.spans + 1)
            continue
        merged.append(box._replace(label="") if narrow else box)
        # A wide box is closed: what follows it must not make it look longer than it was.
        open_box.pop(key, None)
        if narrow:
            open_box[key] = len(merged) - 1
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
    parts: dict[int, set[int]] = {}
    for s in spans:
        if s.kind in NAMES:
            parts.setdefault(s.rank, set()).add(s.part)
    several = any(len(held) > 1 for held in parts.values())
    numbers = [str(getattr(s, counted[s.kind])) if s.kind in counted else "" for s in spans]
    whole = [several and number and s.kind in NAMES for s, number in zip(spans, numbers, strict=True)]
    return [f"{s.part}{s.kind}{n}" if w else n for s, n, w in zip(spans, numbers, whole, strict=True)]
