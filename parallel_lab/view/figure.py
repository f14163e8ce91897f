"""The static timeline: a layout turned into a matplotlib figure. All heights are inches, so that text always fits.

Boxes of one look are one collection: a trace of 2,000 spans is a dozen artists and draws in a fraction of a second.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from parallel_lab.plan import NAMES
from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_bytes, time_unit
from parallel_lab.view.drawing import WIDTH_IN, legend_below, swatches
from parallel_lab.view.geometry import MEMORY, Geometry, fits
from parallel_lab.view.layout import Layout
from parallel_lab.view.style import BAND, FAINT, INK, looks, order, settings, shorten

_LEFT, _RIGHT, _RIGHT_MEMORY = 1.35, 0.2, 0.8
_LANE_NAMES = 0.75  # the width that names of lanes take, left of the axes
_BAND_CHARACTERS = 8  # that fit left of them
_TOP, _TOP_TITLE, _AXIS = 0.12, 0.34, 0.46
_LABEL_PT, _LANE_PT, _TEXT_PT = 8.5, 6.5, 7.0
_DIGIT_IN = 0.66 * _TEXT_PT / 72  # a digit of DejaVu Sans is 0.64 em wide
_PLAIN_BELOW_IN = 0.06  # narrower boxes are drawn without hatching and outline: those would hide the color
_HALO = [withStroke(linewidth=1.6, foreground="white", alpha=0.85)]
_LABEL: dict[str, Any] = {
    "fontsize": _TEXT_PT,
    "ha": "center",
    "va": "center_baseline",
    "path_effects": _HALO,
    "clip_on": True,
}


def timeline_figure(
    trace: Trace,
    layout: Layout,
    *,
    title: str | None,
    slots: bool,
    names: Sequence[str] | None,
) -> Figure:
    """Draws `layout`, with a strip of bytes held under each rank where memory was sampled; `names` are the bands'."""
    memory = bool(trace.memory)
    geometry = Geometry.of(layout, memory)
    right = _RIGHT_MEMORY if memory else _RIGHT
    with settings():
        figure = Figure(figsize=(WIDTH_IN, 1.0), facecolor="white")
        FigureCanvasAgg(figure)
        legend, legend_in = _legend(figure, layout)
        top = _TOP_TITLE if title else _TOP
        height_in = top + geometry.height + _AXIS + legend_in
        figure.set_size_inches(WIDTH_IN, height_in)
        low = (_AXIS + legend_in) / height_in
        axes_in = WIDTH_IN - _LEFT - right
        ax = figure.add_axes((_LEFT / WIDTH_IN, low, axes_in / WIDTH_IN, geometry.height / height_in))
        scale = _axes(ax, trace, layout, geometry, slots)
        if title:
            ax.set_title(shorten(title, int(axes_in / 0.085)), loc="left", fontsize=10, color=INK)
        if legend:
            legend.set_bbox_to_anchor((0.5, 0.02 / height_in))
        _bands(ax, layout, geometry, axes_in, names or [f"rank {rank}" for rank in range(layout.ranks)])
        _boxes(ax, layout, geometry, scale, axes_in)
        if memory:
            _memory(ax, trace, layout, geometry, scale)
    return figure


def _axes(ax: Axes, trace: Trace, layout: Layout, geometry: Geometry, slots: bool) -> float:
    """Sets limits, ticks and labels; returns the seconds in one unit of the time axis."""
    scale, unit = (1.0, "slot") if slots else time_unit(layout.duration_s)
    kind = "slot of the plan" if slots else f"simulated time ({unit})" if trace.simulated else f"time ({unit})"
    ax.set_xlim(0, (layout.duration_s or 1.0) / scale)
    ax.set_ylim(geometry.height, 0)
    ax.set_xlabel(kind, fontsize=8)
    ax.tick_params(axis="x", labelsize=7.5, length=3)
    ax.set_yticks([])
    if layout.duration_s:
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=slots, steps=[1, 2, 5, 10]))
    else:
        ax.set_xticks([])
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    return scale


def _bands(ax: Axes, layout: Layout, geometry: Geometry, axes_in: float, bands: Sequence[str]) -> None:
    """A pale band behind each rank, its name, and the names of its lanes where they fit."""
    names = geometry.lane_names()
    for rank in range(layout.ranks):
        top, bottom = geometry.band(rank)
        ax.axhspan(top, bottom, color=BAND, zorder=0, linewidth=0)
        where = {"transform": ax.get_yaxis_transform(), "clip_on": False, "va": "center", "ha": "right"}
        ax.text(
            -(_LANE_NAMES if names else 0.07) / axes_in,
            (top + bottom) / 2,
            shorten(bands[rank], _BAND_CHARACTERS),
            fontsize=_LABEL_PT,
            color=INK,
            **where,
        )
        for name, middle in names:
            ax.text(-0.07 / axes_in, top + middle, name, fontsize=_LANE_PT, color=FAINT, **where)


def _boxes(ax: Axes, layout: Layout, geometry: Geometry, scale: float, axes_in: float) -> None:
    """All boxes, one collection a look and width class, and the labels that fit."""
    found = looks(order(box.kind for box in layout.boxes))
    inch_s = (layout.duration_s or 1.0) / axes_in
    corners: dict[tuple[str, bool], list] = defaultdict(list)
    for box in layout.boxes:
        width_in = (box.end_s - box.start_s) / inch_s
        left = (box.start_s - layout.start_s) / scale
        # Nothing that happened may vanish: a box is a pixel wide at least.
        right = left + max(width_in, 1 / 96) * inch_s / scale
        top, bottom = geometry.box(box)
        corners[box.kind, width_in < _PLAIN_BELOW_IN].append(
            ((left, top), (right, top), (right, bottom), (left, bottom))
        )
        if box.label and fits(bottom - top) and width_in > len(box.label) * _DIGIT_IN + 0.03:
            middle = (left + right) / 2, (top + bottom) / 2
            ax.text(*middle, box.label, **_LABEL)
    for (kind, plain), shapes in corners.items():
        look = found[kind]
        area = {"facecolor": look.color, "linewidth": 0} if plain else {**look.area(), "linewidth": 0.4}
        ax.add_collection(PolyCollection(shapes, **area), autolim=False)


def _memory(ax: Axes, trace: Trace, layout: Layout, geometry: Geometry, scale: float) -> None:
    """Bytes held by each rank as a filled step, all ranks to one scale, with the peak written at the right."""
    most = max((trace.peak_bytes(rank) for rank in range(trace.ranks)), default=0) or 1
    for rank in range(trace.ranks):
        levels = [(time_s, sum(held.values())) for time_s, held in trace.held_bytes(rank)]
        top, bottom = geometry.lane(rank, MEMORY)
        if levels:
            times_s, held = np.array([*levels, (layout.end_s, levels[-1][1])]).T  # the last level lasts to the end
            heights = bottom - (bottom - top) * held / most
            x = (times_s - layout.start_s) / scale
            ax.fill_between(x, bottom, heights, step="post", color="#BBBBBB", linewidth=0)
            ax.step(x, heights, where="post", color=INK, linewidth=0.7)
        peak = f"≤ {format_bytes(trace.peak_bytes(rank))}"
        where = {"transform": ax.get_yaxis_transform(), "clip_on": False, "va": "center"}
        ax.text(1.008, (top + bottom) / 2, peak, fontsize=_LANE_PT, color=FAINT, **where)


def _legend(figure: Figure, layout: Layout) -> tuple[Legend | None, float]:
    """The legend under the axes, and its height in inches."""
    kinds = order(box.kind for box in layout.boxes)
    if not kinds:
        return None, 0.0
    names = [f"{kind}: {NAMES[kind]}" if kind in NAMES else kind for kind in kinds]
    legend = legend_below(figure, swatches(kinds), names, loc="lower center", long=2.2)
    return legend, legend.get_window_extent().height / figure.dpi
