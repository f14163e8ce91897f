"""The interactive timeline: a widget that draws the layout of a trace on a canvas in the browser.

Spans travel as rows of numbers, at most `MOST_BOXES` of them; what is narrower is merged. The page needs no network.
"""

from pathlib import Path

import anywidget
import traitlets

from parallel_lab.plan import NAMES
from parallel_lab.trace import Trace
from parallel_lab.view.drawing import FOLDED
from parallel_lab.view.layout import Box, Layout, counted_kinds, lane_name, lay_out
from parallel_lab.view.style import looks, order
from parallel_lab.view.text import WORDS, summary

MOST_BOXES = 20_000
_MOST_LEVELS = 2_000
_HERE = Path(__file__).parent


def module() -> str:
    """The source of the widget's ES module: painting, reading, elements, then the widget itself."""
    names = ("paint.js", "tooltip.js", "elements.js", "canvas.js")
    return "\n".join((_HERE / name).read_text("utf-8") for name in names)


class Canvas(anywidget.AnyWidget):
    """A timeline to zoom and pan. What the reader sees is in traits that Python can read, watch and set."""

    _esm = module()
    _css = (_HERE / "canvas.css").read_text("utf-8")

    data = traitlets.Dict().tag(sync=True)  # what is drawn; see `payload`
    start_s = traitlets.Float(0.0).tag(sync=True)  # where the stretch of time in view begins, since the first span
    end_s = traitlets.Float(0.0).tag(sync=True)  # where it ends
    selected = traitlets.Int(-1).tag(sync=True)  # index of the selected box in `data["boxes"]`; -1 for none

    def __init__(self, data: dict, **traits) -> None:
        super().__init__(data=data, end_s=data["duration_s"], **traits)

    def __repr__(self) -> str:  # what a page without widgets shows
        return "An interactive timeline: run this cell in JupyterLab to zoom and pan."


def payload(trace: Trace, slots: bool, label: str, title: str = "") -> dict:
    """What the browser needs to draw `trace`, compact enough to be sent as JSON.

    `boxes` holds rows of (rank, lane, row, start_s, duration_s, kind, part, mb, peer, bytes, wait_s, line, count,
    cut). In them lane, kind and line are indices into the lists of that name; mb is the round where a collective counts
    rounds; cut is 1 of a call that had not ended when the run was cut short.
    `memory` holds (time_s, bytes) per rank.
    """
    columns = 1_000_000  # the finest layout that is small enough
    while len((layout := lay_out(trace, columns)).boxes) > MOST_BOXES and columns > 100:
        columns //= 4
    counted = counted_kinds(trace.spans)
    kinds = order(box.kind for box in layout.boxes)
    lines = list(dict.fromkeys(trace.spans[box.first].line for box in layout.boxes))
    lists = {"kind": kinds, "lane": layout.rows, "line": lines}
    index = {name: {value: i for i, value in enumerate(values)} for name, values in lists.items()}
    return {
        "label": label,
        "title": title,
        "folded": FOLDED,
        "words": WORDS,
        "text": summary(trace, times=True) if not slots else label,
        "ranks": layout.ranks,
        "duration_s": layout.duration_s,
        "slots": slots,
        "simulated": trace.simulated,
        "lanes": [{"name": lane_name(lane, layout.rows), "rows": rows} for lane, rows in layout.rows.items()],
        "kinds": [
            {"name": NAMES.get(kind, kind), "counted": kind in counted, "ink": look.ink, **look._asdict()}
            for kind, look in looks(kinds).items()
        ],
        "lines": lines,
        "boxes": [_row(trace, layout, box, index, counted) for box in layout.boxes],
        "memory": [_levels(trace, layout, rank) for rank in range(trace.ranks)] if trace.memory else [],
    }


def _row(trace: Trace, layout: Layout, box: Box, index: dict[str, dict[str, int]], counted: dict[str, str]) -> list:
    s = trace.spans[box.first]
    where = [box.rank, index["lane"][box.lane], box.row]
    times = [_short(box.start_s - layout.start_s), _short(box.end_s - box.start_s)]
    number = getattr(s, counted.get(s.kind, "mb"))
    what = [index["kind"][box.kind], s.part, number, s.peer, s.bytes, float(f"{s.wait_s:.4g}")]
    return [*where, *times, *what, index["line"][s.line], box.spans, int(box.cut)]


def _short(time_s: float) -> float:
    return round(time_s, 12)  # so that JSON writes it in few digits


def _levels(trace: Trace, layout: Layout, rank: int) -> list[list[float]]:
    """Bytes held by `rank` over time, thinned where there are too many samples, keeping the highest of each stretch."""
    levels = [[_short(t - layout.start_s), sum(held.values())] for t, held in trace.held_bytes(rank)]
    stride = -(-len(levels) // _MOST_LEVELS) or 1
    return [max(levels[at : at + stride], key=lambda level: level[1]) for at in range(0, len(levels), stride)]
