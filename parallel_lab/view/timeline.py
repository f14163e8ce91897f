"""`draw`: one trace, three ways to look at it: a picture with its summary, an interactive canvas, a trace file.

Boxes of one look are one collection: a trace of 2,000 spans is a dozen artists and draws in a fraction of a second.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from parallel_lab.network import Link, Nodes
from parallel_lab.plan import NAMES
from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_bytes, time_unit
from parallel_lab.view.bands import MEMORY, TEXT_IN, Bands
from parallel_lab.view.canvas import Canvas, payload
from parallel_lab.view.chrome import save_chrome
from parallel_lab.view.drawing import WIDTH_IN, Drawing, legend_below, swatches
from parallel_lab.view.layout import Layout, band_names, lane_name, lay_out, trace_of
from parallel_lab.view.style import BAND, FAINT, INK, Look, looks, order, settings, shorten
from parallel_lab.view.text import WORDS, alt_text, summary

_COLUMNS_PER_IN = 96
_LEFT, _RIGHT, _RIGHT_MEMORY = 1.35, 0.2, 0.8
_LANE_NAMES = 0.75  # the width that names of lanes take, left of the axes
_BAND_CHARACTERS = 8  # that fit left of them
_TOP, _TOP_TITLE, _AXIS = 0.12, 0.34, 0.46
_LABEL_PT, _LANE_PT, _TEXT_PT = 8.5, 6.5, 7.0
_DIGIT_IN = 0.66 * _TEXT_PT / 72  # a digit of DejaVu Sans is 0.64 em wide
_PLAIN_BELOW_IN = 0.06  # narrower boxes are drawn without hatching and outline: those would hide the color
_HALO = [withStroke(linewidth=1.6, foreground="white", alpha=0.85)]
_LABEL: dict[str, Any] = {"fontsize": _TEXT_PT, "ha": "center", "va": "center_baseline", "path_effects": _HALO}

_PALE: dict[str, Any] = {"facecolor": "#DDDDDD", "edgecolor": FAINT, "linewidth": 0.4}
_PAPER: dict[str, Any] = {"bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}}
_CUT: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.6, "linestyle": (0, (3, 1))}


class Timeline(Drawing):
    """The picture of a trace; see `Drawing` for what it shows in a notebook."""

    def __init__(
        self, source, title: str | None, names: Sequence[str] | None = None, link: Link | Nodes | None = None
    ) -> None:
        self.trace, self.slots = trace_of(source)  # for a plan, its ops in unit slots
        figure = _figure(self.trace, self.slots, title, band_names(self.trace, names), link)
        shown = alt_text(self.trace, self.trace.simulated, self.slots)
        words = WORDS if self.trace.simulated else ""  # measured times stand in the canvas alone
        super().__init__(figure, title, shown, summary(source, names=names), words)

    def interactive(self) -> Canvas:
        """A canvas to zoom and pan with mouse or keyboard, with a tooltip for each span."""
        return Canvas(data=payload(self.trace, self.slots, self.alt, self.title or ""))

    def chrome(self, path: str | Path) -> None:
        """Writes a trace file that Perfetto and chrome://tracing open; a slot of a plan becomes a second."""
        save_chrome(self.trace, path)


def draw(
    source=None, *, title: str | None = None, names: Sequence[str] | None = None, link: Link | Nodes | None = None
) -> Timeline:
    """Draws what each rank did, or shall do, over time: one band per rank, computing above communicating.

    `source` is a run, a `Trace`, or a `Plan`, which is drawn in slots of equal length. It may also be what `launch`
    raised; without an argument it is what a cell raised last. Calls that had not ended have a dashed outline: they are
    drawn a little beyond the last thing that happened, not to the moment at which the ranks were ended. Where memory
    was sampled, a strip under each band has the bytes held. A notebook shows the picture with a summary below.

    Where a trace was put together from several runs, `names` replace `rank 0`, `rank 1`, ...; 8 characters
    at most are shown. The interactive canvas keeps the numbers.

    A bar begins when a message is asked for. Over an emulated `link` (the run's, where `source` is a run), the bar is
    pale until the message moves: it waits for its turn at this rank's port, or a receive for its sender.

    Raises:
        TypeError: `source` is none of these.
        ValueError: there is not one name per rank, the plan cannot finish, or without an argument no launch failed.
    """
    source = _raised_last() if source is None else source
    return Timeline(source, title, names, link or getattr(source, "link", None))


def _raised_last() -> Trace:
    """What the ranks did until the error that Python, or a notebook, has shown last."""
    trace = getattr(getattr(sys, "last_value", None), "trace", None)
    if not isinstance(trace, Trace):
        raise ValueError("the last error shown is not of a launch: draw a run, a trace or a plan, as draw(run)")
    return trace


@settings()
def _figure(trace: Trace, slots: bool, title: str | None, names: Sequence[str], link: Link | Nodes | None) -> Figure:
    layout = lay_out(trace, int(_COLUMNS_PER_IN * WIDTH_IN), link)
    memory = bool(trace.memory)
    bands = Bands(layout, memory)
    figure = Figure(figsize=(WIDTH_IN, 1.0))
    low, legend = _AXIS, _legend(figure, layout)
    if legend:
        low += legend.get_window_extent().height / figure.dpi
    height_in = (_TOP_TITLE if title else _TOP) + bands.height + low
    axes_in = WIDTH_IN - _LEFT - (_RIGHT_MEMORY if memory else _RIGHT)
    figure.set_size_inches(WIDTH_IN, height_in)
    ax = figure.add_axes((_LEFT / WIDTH_IN, low / height_in, axes_in / WIDTH_IN, bands.height / height_in))
    if title:
        ax.set_title(shorten(title, int(axes_in / 0.085)), loc="left", fontsize=10, color=INK)
    if legend:
        legend.set_bbox_to_anchor((0.5, 0.02 / height_in))
    scale = _time_axis(ax, trace, layout, slots)
    _draw_bands(ax, layout, bands, names)
    _draw_boxes(ax, layout, bands, scale, axes_in)
    if memory:
        _draw_memory(ax, trace, layout, bands, scale)
    return figure


def _legend(figure: Figure, layout: Layout) -> Legend | None:
    """What the looks of the boxes mean; None of an empty picture."""
    kinds = order(box.kind for box in layout.boxes)
    words = [f"{kind}: {NAMES[kind]}" if kind in NAMES else kind for kind in kinds]
    samples = swatches(kinds)
    if any(box.moves_s > box.start_s for box in layout.boxes):
        samples, words = [*samples, Patch(**_PALE)], [*words, "pale: asked for, not yet moving"]
    if any(box.cut for box in layout.boxes):
        samples, words = [*samples, Patch(**_CUT)], [*words, "outlined: had not ended"]
    return legend_below(figure, samples, words, loc="lower center", long=2.2) if kinds else None


def _time_axis(ax: Axes, trace: Trace, layout: Layout, slots: bool) -> float:
    """Sets limits, ticks and labels of the time axis; returns the seconds in one unit of it."""
    scale, unit = (1.0, "slot") if slots else time_unit(layout.duration_s)
    kind = "slot of the plan" if slots else f"simulated time ({unit})" if trace.simulated else f"time ({unit})"
    ax.set_xlim(0, (layout.duration_s or 1.0) / scale)
    ax.set_xlabel(kind, fontsize=8)
    if layout.duration_s:
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=slots, steps=[1, 2, 5, 10]))
    else:
        ax.set_xticks([])
    ax.spines["left"].set_visible(False)
    return scale


def _draw_bands(ax: Axes, layout: Layout, bands: Bands, names: Sequence[str]) -> None:
    """A pale band behind each rank, its name, and the names of its lanes where they fit."""
    for rank in range(layout.ranks):
        ax.axhspan(*bands.band(rank), color=BAND, zorder=0, linewidth=0)
    middles = [sum(bands.band(rank)) / 2 for rank in range(layout.ranks)]
    ax.set_yticks(middles, [shorten(name, _BAND_CHARACTERS) for name in names], fontsize=_LABEL_PT)
    ax.tick_params(axis="y", which="both", length=0, pad=0.07 * 72)
    if bands.named:
        ax.tick_params(axis="y", pad=_LANE_NAMES * 72)
        lanes = [(rank, lane) for rank in range(layout.ranks) for lane in bands.lanes]
        middles = [sum(bands.lane(*lane)) / 2 for lane in lanes]
        ax.yaxis.remove_overlapping_locs = False  # a lane may lie where the band has its name
        words = [lane_name(lane, bands.lanes) for _, lane in lanes]
        ax.set_yticks(middles, words, minor=True, fontsize=_LANE_PT, color=FAINT)
    ax.set_ylim(bands.height, 0)


def _draw_boxes(ax: Axes, layout: Layout, bands: Bands, scale: float, axes_in: float) -> None:
    """All boxes, one collection a look and width class, and the labels that fit."""
    inch_s = (layout.duration_s or 1.0) / axes_in
    corners: dict[tuple[str, bool], list] = defaultdict(list)
    pale, cut = [], []

    def x(time_s: float) -> float:
        return (time_s - layout.start_s) / scale

    for box in layout.boxes:
        if box.moves_s > box.start_s:
            pale.append(bands.corners(box, x(box.start_s), x(box.moves_s)))
            box = box._replace(start_s=box.moves_s)
        width_in = (box.end_s - box.start_s) / inch_s
        # Nothing that happened may vanish: a box is a pixel wide at least.
        left, right = x(box.start_s), x(box.start_s + max(width_in, 1 / 96) * inch_s)
        shape = bands.corners(box, left, right)
        corners[box.kind, width_in < _PLAIN_BELOW_IN].append(shape)
        cut += [shape] if box.cut else []
        top, bottom = bands.box(box)
        if box.label and bottom - top >= TEXT_IN and width_in > len(box.label) * _DIGIT_IN + 0.03:
            paper = _PAPER if box.cut else {}
            ax.text((left + right) / 2, (top + bottom) / 2, box.label, clip_on=True, **_LABEL, **paper)
    found = looks(order(box.kind for box in layout.boxes))
    areas = [(pale, _PALE), *((shapes, _area(found[kind], plain)) for (kind, plain), shapes in corners.items())]
    for shapes, area in [*areas, (cut, _CUT)]:
        ax.add_collection(PolyCollection(shapes, **area), autolim=False)


def _area(look: Look, plain: bool) -> dict[str, Any]:
    return {"facecolor": look.color, "linewidth": 0} if plain else {**look.area(), "linewidth": 0.4}


def _draw_memory(ax: Axes, trace: Trace, layout: Layout, bands: Bands, scale: float) -> None:
    """Bytes held by each rank as a filled step, all ranks to one scale, with the peak written at the right."""
    peaks = [trace.peak_bytes(rank) for rank in range(trace.ranks)]
    for rank, peak in enumerate(peaks):
        levels = [(time_s, sum(held.values())) for time_s, held in trace.held_bytes(rank)]
        top, bottom = bands.lane(rank, MEMORY)
        if levels:
            times_s, held = np.array([*levels, (layout.end_s, levels[-1][1])]).T  # the last level lasts to the end
            heights = bottom - (bottom - top) * held / (max(peaks) or 1)
            x = (times_s - layout.start_s) / scale
            ax.fill_between(x, bottom, heights, step="post", color="#BBBBBB", linewidth=0)
            ax.step(x, heights, where="post", color=INK, linewidth=0.7)
        right = {"transform": ax.get_yaxis_transform(), "fontsize": _LANE_PT, "color": FAINT, "va": "center"}
        ax.text(1.008, (top + bottom) / 2, f"≤ {format_bytes(peak)}", **right)
