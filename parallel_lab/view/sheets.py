"""Sheets of cells side by side, rows and columns named: words (`grid`), shades (`heatmap`), ranks (`draw_mesh`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from parallel_lab.view.drawing import WIDTH_IN, Drawing, panels
from parallel_lab.view.style import FAINT, INK, Look, numbered, settings
from parallel_lab.view.text import table

Names = Sequence[str]
Cells = Sequence[Sequence[str]]
_HALO = [withStroke(linewidth=2.0, foreground="white", alpha=0.9)]
_EMPTY: dict[str, Any] = {"facecolor": "#FFFFFF", "edgecolor": FAINT}
_TEXT_WIDTH = 115  # characters of a line of text
_SHADES = 16  # few enough for the palette of a Drawing
_CHARACTER_IN = 0.1  # a name of one character needs so much room
_RANK_IN = 1.05  # a cell of a mesh


@settings()
def grid(
    sheets: Mapping[str, Cells],
    rows: Names,
    columns: Names,
    *,
    xlabel: str = "",
    ylabel: str = "",
    by: Callable[[str], str] = str,
    across: int = 4,
    title: str | None = None,
    width_in: float = WIDTH_IN,
) -> Drawing:
    """Draws one panel for each of `sheets`: {heading: cells}, where `cells[row][column]` is a word, or empty.

    Every panel has the same `rows` and `columns`, which are their names. Cells whose word gives the same `by` look the
    same. At most `across` panels stand side by side.

    Raises:
        ValueError: there is nothing to draw, or a panel has not a word for each row and column.
    """
    _check(sheets, rows, columns, "words")
    looks = _looks(sheets, by)
    across = min(across, len(sheets))
    panel_in = 0.75 + max(0.2, min(0.32, 3.4 / len(rows))) * len(rows)
    figure, axes = panels(len(sheets), across, width_in, panel_in, title)
    longest = max((len(line) for word in looks for line in word.split("\n")), default=1)
    size = max(5.5, min(8.0, 62 * width_in / across / len(columns) / longest / 0.75))
    for ax, (heading, cells) in zip(axes, sheets.items(), strict=True):
        _write_cells(ax, cells, looks, size)
        _label(ax, heading, rows, columns, 7.0)
    _label_outer(axes, across, xlabel, ylabel)
    shown = f"Grid of {ylabel or 'rows'} by {xlabel or 'columns'}: {', '.join(sheets)}."
    return Drawing(figure, title, shown, _side_by_side(sheets, rows, columns, across))


@settings()
def heatmap(
    matrices: Mapping[str, Sequence[Sequence[float]]],
    rows: Names,
    columns: Names,
    *,
    xlabel: str = "",
    ylabel: str = "",
    across: int = 4,
    title: str | None = None,
    show_values: bool = True,
    width_in: float = WIDTH_IN,
) -> Drawing:
    """Draws one panel for each of `matrices`: {heading: numbers}, from white (0) to dark (the largest of all panels).

    As in `grid`; `numbers[row][column]` is 0 or more. `show_values=False` leaves the largest numbers out of the text,
    where they differ between machines.

    Raises:
        ValueError: there is nothing to draw, a panel has another shape, or a number is negative.
    """
    _check(matrices, rows, columns, "numbers")
    arrays = {name: np.asarray(numbers, dtype=float) for name, numbers in matrices.items()}
    for name, array in arrays.items():
        if not (array >= 0).all():  # so that not-a-number is caught too
            raise ValueError(f"{name}: a heatmap shows numbers of 0 or more")
    across = min(across, len(arrays))
    scale = Normalize(0, max(array.max() for array in arrays.values()) or 1.0)
    shades = mpl.colormaps["Blues"].resampled(_SHADES)
    panel_in = 0.7 + (width_in / across - 0.6) * len(rows) / len(columns)
    figure, axes = panels(len(arrays), across, width_in, panel_in, title)
    longest = max(map(len, columns))
    collide = longest > 1 and longest * _CHARACTER_IN * len(columns) > width_in / across - 0.7
    for ax, (name, array) in zip(axes, arrays.items(), strict=True):
        ax.imshow(array, cmap=shades, norm=scale, aspect="auto", interpolation="nearest")
        if max(array.shape) <= 16:  # lines, so that equal neighbors do not melt into one block
            for draw, count in ((ax.axhline, len(rows)), (ax.axvline, len(columns))):
                for edge in range(1, count):
                    draw(edge - 0.5, color="#999999", linewidth=0.5)
        _label(ax, name, rows, columns, 6.5, turn=90 if collide else 0)
    _label_outer(axes, across, xlabel, ylabel)
    figure.colorbar(ScalarMappable(scale, shades), ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    text = {"": list(arrays), "cells": [f"{len(rows)} x {len(columns)}"] * len(arrays)}
    if show_values:
        text["largest"] = [f"{array.max():.3g}" for array in arrays.values()]
    shown = f"Heatmap of {ylabel or 'rows'} by {xlabel or 'columns'}: {', '.join(arrays)}."
    return Drawing(figure, title, shown, table(text))


def draw_mesh(mesh, *, title: str | None = None) -> Drawing:
    """Draws the coordinates of each rank; the last axis runs across, the one before it down, others are panels.

    `mesh` is {axis name: size}, slowest axis first, ranks numbered row by row as PyTorch does; or a `DeviceMesh`. Cells
    look the same where the coordinate on the last axis is the same: the same shard. The text lists the groups of ranks
    along each axis.

    Raises:
        ValueError: an axis is missing or empty.
    """
    names, ranks = _mesh_of(mesh)
    if ranks.ndim == 1:
        names, ranks = ["", *names], ranks[None]
    outer = [", ".join(map("{} {}".format, names, place)) for place in np.ndindex(ranks.shape[:-2])]
    sheets = ranks.reshape(-1, *ranks.shape[-2:])
    last = {f"rank {rank}": str(place[-1]) for place, rank in np.ndenumerate(ranks)}
    panel_in = _RANK_IN * ranks.shape[-1] + 0.5
    across = max(1, min(len(sheets), int(WIDTH_IN / panel_in)))
    drawing = grid(
        {name: [[f"rank {rank}" for rank in row] for row in sheet] for name, sheet in zip(outer, sheets, strict=True)},
        [f"{names[-2]} {i}" if names[-2] else "" for i in range(ranks.shape[-2])],
        [f"{names[-1]} {i}" for i in range(ranks.shape[-1])],
        by=last.__getitem__,
        across=across,
        title=title,
        width_in=min(WIDTH_IN, max(3.5, across * panel_in)),
    )
    groups = {name: np.moveaxis(ranks, axis, -1).reshape(-1, ranks.shape[axis]) for axis, name in enumerate(names)}
    lines = [f"{name}: groups {' '.join(map(str, rows.tolist()))}" for name, rows in groups.items() if name]
    drawing.text = "\n".join(lines)
    return drawing


def _mesh_of(mesh) -> tuple[list[str], np.ndarray]:
    """Axis names, and the ranks as an array with these axes."""
    if isinstance(mesh, Mapping):
        sizes = list(mesh.values())
        if not sizes or any(size < 1 for size in sizes):
            raise ValueError(f"a mesh needs one axis or more, each of size 1 or more: {dict(mesh)}")
        return list(mesh), np.arange(np.prod(sizes)).reshape(sizes)
    ranks = np.asarray(mesh.mesh.tolist())
    return list(mesh.mesh_dim_names or [f"axis {i}" for i in range(ranks.ndim)]), ranks


def _check(sheets: Mapping[str, Sequence], rows: Names, columns: Names, what: str) -> None:
    if not (sheets and rows and columns):
        raise ValueError("nothing to draw: no panel, row or column")
    for heading, cells in sheets.items():
        if len(cells) != len(rows) or any(len(row) != len(columns) for row in cells):
            raise ValueError(f"{heading}: expected {len(rows)} rows of {len(columns)} {what}")


def _label(ax: Axes, heading: str, rows: Names, columns: Names, size: float, turn: int = 0) -> None:
    ax.set_title(heading, color=INK)
    ax.set_xticks(range(len(columns)), columns, rotation=turn)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labelsize=size)
    ax.spines[:].set_visible(False)


def _label_outer(axes: Sequence[Axes], across: int, xlabel: str, ylabel: str) -> None:
    for ax in axes[::across]:
        ax.set_ylabel(ylabel)
    for ax in axes[-across:]:  # the last of each column
        ax.set_xlabel(xlabel)


def _looks(sheets: Mapping[str, Cells], by: Callable[[str], str]) -> dict[str, Look]:
    """The look of each word; words that `by` puts together share one."""
    words = sorted({word for cells in sheets.values() for row in cells for word in row if word})
    kinds = list(dict.fromkeys(map(by, words)))
    of_kind = dict(zip(kinds, numbered(len(kinds)), strict=True))
    return {word: of_kind[by(word)] for word in words}


def _write_cells(ax: Axes, cells: Cells, looks: Mapping[str, Look], size: float) -> None:
    for y, row in enumerate(cells):
        for x, word in enumerate(row):
            area = looks[word].area(dense=1) if word else _EMPTY
            ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, linewidth=0.4, alpha=0.75, **area))
            ax.text(x, y, word, ha="center", va="center", fontsize=size, color=INK, path_effects=_HALO)
    ax.set(xlim=(-0.5, len(cells[0]) - 0.5), ylim=(len(cells) - 0.5, -0.5))


def _side_by_side(sheets: Mapping[str, Cells], rows: Names, columns: Names, across: int) -> str:
    """Each panel as a table under its heading, a dash where a cell is empty; side by side where they fit."""
    blocks = []
    for heading, cells in sheets.items():
        words = {name: [row[x] or "-" for row in cells] for x, name in enumerate(columns)}
        lines = [heading, *table({"": rows, **words}).split("\n")]
        width = max(map(len, lines))
        blocks.append([line.ljust(width) for line in lines])
    fitting = min(across, max(1, _TEXT_WIDTH // (3 + max(len(block[0]) for block in blocks))))
    bands = [blocks[i : i + fitting] for i in range(0, len(blocks), fitting)]
    return "\n\n".join("\n".join("   ".join(parts).rstrip() for parts in zip(*band, strict=True)) for band in bands)
