"""What every picture of the course is: a PNG with a text alternative, and a summary in text below it. And its parts.

In a notebook two outputs appear: the image (`image/png`, which survives the comparison of outputs and every site that
shows notebooks), then the summary. The alternative text stands in the image's metadata, for readers that honor it, and
inside the PNG. JupyterLab (4.6) and the pages that nbconvert makes draw `image/png` without it, so the summary carries
a line of script that hands it on; where scripts do not run, the summary still follows the image.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from parallel_lab.view import style

WIDTH_IN = 9.0  # of a picture with several panels
DPI = 144  # drawn at one and a half times the size at which it is shown, for dense screens
_CSS_DPI = 96
OUTSIDE = "outside lower center"  # where matplotlib makes room for a legend
_COLORS = 40
_TEXT_STYLE = "margin: 0; font-family: var(--jp-code-font-family, monospace)"  # columns must line up everywhere
_LABEL_IMAGE = (
    "{const me=document.currentScript,"
    "image=me?.closest('.jp-OutputArea-child')?.previousElementSibling?.querySelector('img');"
    "if(image)image.alt=me.dataset.alt}"
)


class Drawing:
    """A picture, what it shows in a sentence (`alt`), and its numbers in text (`text`).

    Attributes:
        figure: the matplotlib figure.
        alt: the alternative text of the image.
        text: what stands below the image.
    """

    def __init__(self, figure: Figure, *, alt: str, text: str) -> None:
        self.figure = figure
        self.alt = alt
        self.text = text

    @cached_property
    def png(self) -> bytes:
        """The picture as PNG, with a palette of colors and the alternative text in its `Description`."""
        with style.settings():
            canvas = FigureCanvasAgg(self.figure)
            self.figure.set_dpi(DPI)
            canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        info = PngInfo()
        info.add_text("Description", self.alt)
        out = io.BytesIO()
        _with_palette(image).save(out, "PNG", optimize=True, pnginfo=info)
        return out.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes the PNG to `path`."""
        Path(path).write_bytes(self.png)

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        width, height = (int(side * _CSS_DPI) for side in self.figure.get_size_inches())
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        # Some readers look for `alt` under the mime type, others beside it.
        return data, {"alt": self.alt, "image/png": {"alt": self.alt, "width": width, "height": height}}

    def _ipython_display_(self) -> None:
        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)
        script = f'<script data-alt="{escape(self.alt)}">{_LABEL_IMAGE}</script>'
        display(
            {"text/html": f'<pre style="{_TEXT_STYLE}">{escape(self.text)}</pre>{script}', "text/plain": self.text},
            raw=True,
        )


def _with_palette(image: Image.Image) -> Image.Image:
    """`image` with a palette of its most frequent colors, each other color moved to the nearest of them.

    Pillow's own adaptive palettes shift the pale backgrounds, which are most of a figure.
    """
    pixels = np.asarray(image).astype(np.int32)  # (height, width, 3)
    colors, which, counts = np.unique(pixels @ [1 << 16, 1 << 8, 1], return_inverse=True, return_counts=True)
    kept = colors[np.argsort(-counts, kind="stable")[:_COLORS]]
    channels, palette = ((c[:, None] >> [16, 8, 0]) & 255 for c in (colors, kept))
    nearest = ((channels[:, None] - palette) ** 2).sum(axis=-1).argmin(axis=1)
    small = Image.fromarray(nearest[which].reshape(pixels.shape[:2]).astype(np.uint8))
    small.putpalette(palette.astype(np.uint8).tobytes())
    return small


def panels(
    count: int, columns: int, width_in: float, panel_in: float, title: str | None = None, **shared
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, `columns` side by side, each `panel_in` inches high; `shared` goes to `subplots`."""
    columns = min(columns, count)
    rows = ceil(count / columns)
    figure = Figure(
        figsize=(width_in, rows * panel_in + (0.35 if title else 0)), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
    axes = list(grid.flat)
    for unused in axes[count:]:
        figure.delaxes(unused)
    if title:
        figure.suptitle(style.shorten(title, int(width_in / 0.085)), fontsize=10, x=0.01, ha="left", color=style.INK)
    return figure, axes[:count]


def tidy(ax: Axes, xlabel: str = "", ylabel: str = "") -> None:
    """Labels, a faint grid behind the data, and no frame at top and right."""
    ax.set_xlabel(xlabel, fontsize=8.5)
    ax.set_ylabel(ylabel, fontsize=8.5)
    ax.tick_params(labelsize=7.5, length=3, color=style.FAINT)
    ax.grid(True, linewidth=0.5)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def check_sheets(sheets: Mapping[str, Sequence], rows: Sequence[str], columns: Sequence[str], what: str) -> None:
    """Checks that there is something to draw, and in each sheet a cell for each row and column.

    Raises:
        ValueError: there is not; the message names the sheet, and what its cells are.
    """
    if not (sheets and rows and columns):
        raise ValueError("nothing to draw: no panel, row or column")
    for heading, cells in sheets.items():
        if len(cells) != len(rows) or any(len(row) != len(columns) for row in cells):
            raise ValueError(f"{heading}: expected {len(rows)} rows of {len(columns)} {what}")


def label_sheet(
    ax: Axes, heading: str, rows: Sequence[str], columns: Sequence[str], size: float, turn: int = 0
) -> None:
    """The heading of a sheet of cells and a name at every row and column, with no lines around; `turn` in degrees."""
    ax.set_title(heading, fontsize=8.5, color=style.INK)
    ax.set_xticks(range(len(columns)), columns, rotation=turn)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labelsize=size)
    ax.spines[:].set_visible(False)


def label_outer(axes: Sequence[Axes], across: int, xlabel: str, ylabel: str) -> None:
    """What rows are, left of the first panel of each line, and what columns are, under the last of each column."""
    for i, ax in enumerate(axes):
        ax.set_xlabel(xlabel if i + across >= len(axes) else "", fontsize=8.5)
        ax.set_ylabel(ylabel if i % across == 0 else "", fontsize=8.5)


def legend_below(
    figure: Figure, handles: Sequence, names: Sequence[str], loc: Any = OUTSIDE, long: float = 2.6
) -> Legend:
    """A legend under all axes, in as many columns as fit the width; `long` is the length of its samples."""
    names = [style.shorten(name, 60) for name in names]
    columns = min(len(names), 8)
    while True:
        legend = figure.legend(handles, names, loc=loc, ncols=columns, fontsize=7.5, handlelength=long)
        if columns == 1 or legend.get_window_extent().width / figure.dpi <= figure.get_figwidth() - 0.1:
            return legend
        legend.remove()
        columns -= 1


def swatches(kinds: Sequence[str]) -> list[Patch]:
    """For a legend: a small area in the look of each of `kinds`."""
    looks = style.looks(kinds)
    return [Patch(linewidth=0.4, **looks[kind].area()) for kind in kinds]
