"""Lines and bars in the style of the course, each a `Drawing` with its numbers in text."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from parallel_lab.view.drawing import Drawing, legend_below, panels
from parallel_lab.view.style import INK, LINES, MARKERS, numbered, settings, shorten
from parallel_lab.view.text import table

_WIDTH_IN = 6.5
_TICK_CHARACTERS = 40

Points = tuple[Sequence[float], Sequence[float]]


@settings()
def lines(
    series: Mapping[str, Points],
    xlabel: str,
    ylabel: str,
    *,
    points: Mapping[str, Points] | None = None,
    points_are: str = "measured",
    logx: bool = False,
    logy: bool = False,
    title: str | None = None,
    show_values: bool = True,
    width_in: float = _WIDTH_IN,
) -> Drawing:
    """Draws a line for each of `series` and loose markers for each of `points`: predicted beside measured.

    Both map names to (x, y). Points with the name of a line have its color, and `points_are` tells them apart in the
    legend. `show_values=False` leaves the values out of the text, where they come from a clock.

    Raises:
        ValueError: x and y differ in length, nothing is given, or a value does not fit a logarithmic axis.
    """
    points = points or {}
    drawn = [*series.items(), *points.items()]
    _check(drawn, logx, logy)
    figure, (ax,) = panels(1, 1, width_in, 3.4, title)
    ax.grid(True)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    handles, names = _lines_and_points(ax, series, points, points_are)
    if logx:
        _ticks_at_values(ax, [value for _, (x, _) in drawn for value in x])
    if logy:
        _plain_ticks(ax, [value for _, (_, y) in drawn for value in y])
    legend_below(figure, handles, names)
    kinds = ["line"] * len(series) + ["points"] * len(points)
    columns = {
        "": [name for name, _ in drawn],
        "drawn as": [f"{kind}, {len(x)}" for kind, (_, (x, _)) in zip(kinds, drawn, strict=True)],
    }
    if show_values:
        columns[xlabel] = [_from_to(x) for _, (x, _) in drawn]
        columns[ylabel] = [_from_to(y) for _, (_, y) in drawn]
    shown = f"Line plot of {ylabel} over {xlabel}, for {', '.join({**series, **points})}."
    return Drawing(figure, title, shown, table(columns))


@settings()
def bars(
    series: Mapping[str, Sequence[float]],
    labels: Sequence[str],
    ylabel: str,
    *,
    title: str | None = None,
    show_values: bool = True,
    width_in: float = _WIDTH_IN,
) -> Drawing:
    """Draws bars in groups: one group for each of `labels`, in it one bar for each of `series` (`series[name][group]`).

    `show_values` is that of `lines`.

    Raises:
        ValueError: a series has not one value a label, or nothing is given.
    """
    wrong = [name for name, values in series.items() if len(values) != len(labels)]
    if wrong or not series or not labels:
        raise ValueError(f"each series needs {len(labels)} values; wrong: {', '.join(wrong) or 'no series'}")
    figure, (ax,) = panels(1, 1, width_in, 3.2, title)
    ax.grid(True, axis="y")
    ax.set_ylabel(ylabel)
    width = 0.8 / len(series)
    for i, ((name, values), look) in enumerate(zip(series.items(), numbered(len(series)), strict=True)):
        where = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
        ax.bar(where, values, width, linewidth=0.4, label=name, **look.area())
    room = int((width_in - 0.8) / len(labels) / 0.075)  # characters of 7.5 pt that fit beside each other
    lean = room < max(map(len, labels))
    turn = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if lean else {}
    ax.set_xticks(range(len(labels)), [shorten(label) for label in labels], **turn)
    if len(series) > 1:
        legend_below(figure, *ax.get_legend_handles_labels())
    over, names = ", ".join(labels), ", ".join(series)
    numbers = {name: [f"{value:.4g}" for value in values] for name, values in series.items()}
    text = table({"": labels, **numbers}) if show_values else f"{names} for {over}"
    return Drawing(figure, title, f"Bar chart of {ylabel} over {over}, for {names}.", text)


def _check(drawn: Sequence[tuple[str, Points]], logx: bool, logy: bool) -> None:
    if not drawn:
        raise ValueError("nothing to draw: series and points are empty")
    for name, (x, y) in drawn:
        if len(x) != len(y):
            raise ValueError(f"{name}: {len(x)} x values and {len(y)} y values")
        if (logx and min(x, default=1) <= 0) or (logy and min(y, default=1) <= 0):
            raise ValueError(f"{name}: a logarithmic axis needs values above 0")


def _lines_and_points(
    ax: Axes, series: Mapping[str, Points], points: Mapping[str, Points], points_are: str
) -> tuple[list[Line2D], list[str]]:
    """Draws what there is under each name, lines told apart by dashes and points by markers; returns the legend."""
    handles, words = [], []
    names = list(dict.fromkeys([*series, *points]))
    for i, (name, look) in enumerate(zip(names, numbered(len(names)), strict=True)):
        if name in series:
            dashes = LINES[i % len(LINES)]
            handles += ax.plot(*series[name], color=look.color, linestyle=dashes, linewidth=1.6)
            words.append(name)
        if name in points:
            marker = {"marker": MARKERS[i % len(MARKERS)], "markersize": 6.5, "markeredgecolor": INK}
            handles += ax.plot(*points[name], color=look.color, linestyle="none", markeredgewidth=0.7, **marker)
            words.append(f"{name} ({points_are})" if name in series else name)
    return handles, words


def _ticks_at_values(ax: Axes, values: Sequence[float]) -> None:
    """On a logarithmic axis, ticks at the values themselves where they are few: 1, 2, 4, 8 rather than powers of 10."""
    ticks = sorted(set(values))
    words = [f"{tick:g}" for tick in ticks]
    if len("".join(words)) <= _TICK_CHARACTERS and all(b / a > 1.2 for a, b in pairwise(ticks)):
        ax.set_xticks(ticks, words)
        ax.set_xticks([], minor=True)


def _plain_ticks(ax: Axes, values: Sequence[float]) -> None:
    """On a logarithmic y axis of few powers of ten, plain numbers (20, 50, 100) rather than 2 x 10^1."""
    if values and max(values) < 1e4 and min(values) >= 1e-2 and max(values) / min(values) < 1e3:
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))


def _from_to(values: Sequence[float]) -> str:
    return f"{values[0]:.4g} to {values[-1]:.4g}" if len(values) else "none"
