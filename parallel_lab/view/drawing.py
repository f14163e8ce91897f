"""What every picture of the course is: a PNG with a text alternative, and a summary in text below it. And its parts.

In a notebook two outputs appear: the image (`image/png`, which survives the comparison of outputs and every site that
shows notebooks), then the summary. The alternative text stands in the image's metadata, for readers that honor it, and
inside the PNG. JupyterLab (4.6) and the pages that nbconvert makes draw `image/png` without it, so the summary carries
a line of script that hands it on; where scripts do not run, the summary still follows the image.

In a cell the summary is folded, and scrolls in a narrow window. A picture has a white ground, which reads everywhere;
where the page is JupyterLab's dark theme, a line of style turns light into dark and keeps the hues.
"""

import base64
import io
from collections.abc import Sequence
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

from parallel_lab.view.style import INK, looks, settings, shorten

WIDTH_IN = 9.0  # of a picture with several panels
DPI = 144  # drawn at one and a half times the size at which it is shown, for dense screens
CSS_DPI = 96  # at which a picture is shown
_COLORS = 40
FOLDED = "The numbers in text"  # what opens the summary
_TEXT_STYLE = "margin: 0; white-space: pre; overflow-x: auto; font-family: var(--jp-code-font-family, monospace)"
# White becomes #111111, JupyterLab's ground. The picture is the output before the numbers.
_DARK_STYLE = (
    '[data-jp-theme-light="false"] .jp-OutputArea-child:has(+ .jp-OutputArea-child .plab-numbers) img '
    "{filter: invert(0.933) hue-rotate(180deg)}"
)
_LABEL_IMAGE = (
    "{const me=document.currentScript,"
    "image=me?.closest('.jp-OutputArea-child')?.previousElementSibling?.querySelector('img');"
    "if(image)image.alt=me.dataset.alt}"
)


class Drawing:
    """A picture, what it shows in words (`alt`), and its numbers (`text`), which stand below the image.

    `words` explain what the numbers are called, where that needs it.
    """

    def __init__(self, figure: Figure, title: str | None, shown: str, text: str, words: str = "") -> None:
        self.figure = figure
        self.title = title
        self.alt = f"{title}. {shown}" if title else shown
        self.text = text
        self.words = words

    @cached_property
    def png(self) -> bytes:
        """The picture as PNG, with a palette of colors and the alternative text in its `Description`."""
        with settings():
            canvas = FigureCanvasAgg(self.figure)
            self.figure.set_dpi(DPI)
            canvas.draw()
        info = PngInfo()
        info.add_text("Description", self.alt)
        out = io.BytesIO()
        _with_palette(np.asarray(canvas.buffer_rgba())[..., :3]).save(out, "PNG", optimize=True, pnginfo=info)
        return out.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes the PNG to `path`."""
        Path(path).write_bytes(self.png)

    def __repr__(self) -> str:
        return self.text

    def _ipython_display_(self) -> None:
        width, height = (int(side * CSS_DPI) for side in self.figure.get_size_inches())
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        # Some readers look for `alt` under the mime type, others beside it.
        metadata = {"alt": self.alt, "image/png": {"alt": self.alt, "width": width, "height": height}}
        display(data, metadata=metadata, raw=True)
        display({"text/html": self._numbers(), "text/plain": self.text}, raw=True)

    def _numbers(self) -> str:
        """The text below the image, folded, with what belongs to the image: its alternative text, its look in dark."""
        script = f'<script data-alt="{escape(self.alt)}">{_LABEL_IMAGE}</script>'
        inside = f'<pre style="{_TEXT_STYLE}">{escape(self.text)}</pre>'
        inside += f"<p>{escape(self.words)}</p>" if self.words else ""
        folded = f'<details class="plab-numbers"><summary>{FOLDED}</summary>{inside}</details>'
        return f"<style>{_DARK_STYLE}</style>{folded}{script}"


def _with_palette(image: np.ndarray) -> Image.Image:
    """`image` (height, width, 3) with a palette of its most frequent colors, other colors moved to the nearest.

    Pillow's own adaptive palettes shift the pale backgrounds, which are most of a figure.
    """
    packed = image.astype(np.int32) @ [1 << 16, 1 << 8, 1]
    colors, which, counts = np.unique(packed, return_inverse=True, return_counts=True)
    kept = colors[np.argsort(-counts, kind="stable")[:_COLORS]]
    channels, palette = ((c[:, None] >> [16, 8, 0]) & 255 for c in (colors, kept))
    nearest = ((channels[:, None] - palette) ** 2).sum(axis=-1).argmin(axis=1)
    small = Image.fromarray(nearest[which].reshape(packed.shape).astype(np.uint8))
    small.putpalette(palette.astype(np.uint8).tobytes())
    return small


def panels(
    count: int, columns: int, width_in: float, panel_in: float, title: str | None, **shared
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, `columns` side by side, each `panel_in` inches high; `shared` goes to `subplots`."""
    rows = ceil(count / columns)
    height_in = rows * panel_in + (0.35 if title else 0)
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for unused in axes[count:]:
        unused.remove()
    if title:
        figure.suptitle(shorten(title, int(width_in / 0.085)), x=0.01, ha="left", color=INK)
    return figure, axes[:count]


def legend_below(
    figure: Figure, handles: Sequence, names: Sequence[str], loc: Any = "outside lower center", long: float = 2.6
) -> Legend:
    """A legend under all axes, in as many columns as fit the width; `long` is the length of its samples."""
    names = [shorten(name, 60) for name in names]
    columns = min(len(names), 8)
    while True:
        legend = figure.legend(handles, names, loc=loc, ncols=columns, handlelength=long)
        if columns == 1 or legend.get_window_extent().width / figure.dpi <= figure.get_figwidth() - 0.1:
            return legend
        legend.remove()
        columns -= 1


def swatches(kinds: Sequence[str]) -> list[Patch]:
    """For a legend: a small area in the look of each of `kinds`."""
    return [Patch(linewidth=0.4, **look.area()) for look in looks(kinds).values()]
