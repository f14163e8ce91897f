"""Matrices as shades: who attends to whom, who sends how much to whom."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from parallel_lab.view.drawing import Drawing, panels
from parallel_lab.view.style import INK, settings
from parallel_lab.view.text import table

_SHADES = 16  # few enough for the palette of a Drawing
_COLUMN_IN = 0.1  # a name of one character needs so much room


def heatmap(
    matrices: Mapping[str, Sequence[Sequence[float]]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    xlabel: str = "",
    ylabel: str = "",
    across: int = 4,
    title: str | None = None,
    alt: str | None = None,
    show_values: bool = True,
    width_in: float = 9.0,
) -> Drawing:
    """Draws one panel for each of `matrices`: {heading: numbers}, from white (0) to dark (the largest of all panels).

    Args:
        matrices: every panel has the same rows and columns; `numbers[row][column]` is 0 or more.
        rows: their names, from top to bottom.
        columns: their names, from left to right; long ones stand upright.
        xlabel: what columns are, with the unit.
        ylabel: what rows are, with the unit.
        across: the most panels side by side.
        title: above the picture.
        alt: the alternative text; one is made where none is given.
        show_values: whether the text lists the largest number of each panel; False where it differs between machines.
        width_in: width in inches.

    Raises:
        ValueError: there is nothing to draw, a panel has another shape, or a number is negative.
    """
    arrays = {name: np.asarray(numbers, dtype=float) for name, numbers in matrices.items()}
    _check(arrays, (len(rows), len(columns)))
    across = min(across, len(arrays))
    scale = Normalize(0, max(array.max() for array in arrays.values()) or 1.0)
    shades = mpl.colormaps["Blues"].resampled(_SHADES)
    with settings():
        panel_in = 0.7 + (width_in / across - 0.6) * len(rows) / len(columns)
        figure, axes = panels(len(arrays), across, width_in, panel_in, title)
        for i, (ax, (name, array)) in enumerate(zip(axes, arrays.items(), strict=True)):
            ax.imshow(array, cmap=shades, norm=scale, aspect="auto", interpolation="nearest")
            _name(ax, name, xlabel if i + across >= len(arrays) else "", ylabel if i % across == 0 else "")
            _ticks(ax, rows, columns, width_in / across - 0.7)
        figure.colorbar(ScalarMappable(scale, shades), ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    made = f"{title or ''} Heatmap of {ylabel or 'rows'} by {xlabel or 'columns'}: {', '.join(arrays)}.".strip()
    return Drawing(figure, alt=alt or made, text=_text(arrays, show_values))


def _check(arrays: Mapping[str, np.ndarray], shape: tuple[int, int]) -> None:
    if not arrays or 0 in shape:
        raise ValueError("nothing to draw: no panel, row or column")
    for name, array in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name}: expected {shape[0]} rows of {shape[1]} numbers, got the shape {array.shape}")
        if not (array >= 0).all():  # so that not-a-number is caught too
            raise ValueError(f"{name}: a heatmap shows numbers of 0 or more")


def _name(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    ax.set_title(title, fontsize=8.5, color=INK)
    ax.set_xlabel(xlabel, fontsize=8.5)
    ax.set_ylabel(ylabel, fontsize=8.5)


def _ticks(ax: Axes, rows: Sequence[str], columns: Sequence[str], room_in: float) -> None:
    """A name at every row and column; names of columns stand upright where they would run into each other."""
    widest = max(map(len, columns)) * _COLUMN_IN * len(columns)
    ax.set_xticks(range(len(columns)), columns, rotation=90 if widest > room_in and max(map(len, columns)) > 1 else 0)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labelsize=6.5)
    ax.spines[:].set_visible(False)


def _text(arrays: Mapping[str, np.ndarray], show_values: bool) -> str:
    shape = [f"{array.shape[0]} x {array.shape[1]}" for array in arrays.values()]
    columns = {"": list(arrays), "cells": shape}
    if show_values:
        columns["largest"] = [f"{array.max():.3g}" for array in arrays.values()]
    return "\n".join(table(columns))
