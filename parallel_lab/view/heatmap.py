"""Matrices as shades: who attends to whom, who sends how much to whom."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from parallel_lab.view.drawing import WIDTH_IN, Drawing, check_sheets, label_outer, label_sheet, panels
from parallel_lab.view.style import settings
from parallel_lab.view.text import table, titled

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
    show_values: bool = True,
    width_in: float = WIDTH_IN,
) -> Drawing:
    """Draws one panel for each of `matrices`: {heading: numbers}, from white (0) to dark (the largest of all panels).

    Every panel has the same `rows` and `columns`, which are their names; `numbers[row][column]` is 0 or more. At most
    `across` panels stand side by side. `show_values=False` leaves the largest numbers out of the text, where they
    differ between machines.

    Raises:
        ValueError: there is nothing to draw, a panel has another shape, or a number is negative.
    """
    check_sheets(matrices, rows, columns, "numbers")
    arrays = {name: np.asarray(numbers, dtype=float) for name, numbers in matrices.items()}
    for name, array in arrays.items():
        if not (array >= 0).all():  # so that not-a-number is caught too
            raise ValueError(f"{name}: a heatmap shows numbers of 0 or more")
    across = min(across, len(arrays))
    scale = Normalize(0, max(array.max() for array in arrays.values()) or 1.0)
    shades = mpl.colormaps["Blues"].resampled(_SHADES)
    with settings():
        panel_in = 0.7 + (width_in / across - 0.6) * len(rows) / len(columns)
        figure, axes = panels(len(arrays), across, width_in, panel_in, title)
        longest = max(map(len, columns))
        collide = longest > 1 and longest * _COLUMN_IN * len(columns) > width_in / across - 0.7
        for ax, (name, array) in zip(axes, arrays.items(), strict=True):
            ax.imshow(array, cmap=shades, norm=scale, aspect="auto", interpolation="nearest")
            label_sheet(ax, name, rows, columns, 6.5, turn=90 if collide else 0)
        label_outer(axes, across, xlabel, ylabel)
        figure.colorbar(ScalarMappable(scale, shades), ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    made = f"Heatmap of {ylabel or 'rows'} by {xlabel or 'columns'}: {', '.join(arrays)}."
    return Drawing(figure, alt=titled(title, made), text=_text(arrays, show_values))


def _text(arrays: Mapping[str, np.ndarray], show_values: bool) -> str:
    shape = [f"{array.shape[0]} x {array.shape[1]}" for array in arrays.values()]
    columns = {"": list(arrays), "cells": shape}
    if show_values:
        columns["largest"] = [f"{array.max():.3g}" for array in arrays.values()]
    return "\n".join(table(columns))
