"""What every picture of the course is: a PNG with a text alternative, and a summary in text below it.

In a notebook two outputs appear: the image (`image/png`, which survives the comparison of outputs and every site that
shows notebooks), then the summary. The alternative text stands in the image's metadata, for readers that honour it, and
inside the PNG. JupyterLab (4.6) and the pages that nbconvert makes draw `image/png` without it, so the summary carries
a line of script that hands it on; where scripts do not run, the summary still follows the image.
"""

import base64
import io
from functools import cached_property
from html import escape
from pathlib import Path

import numpy as np
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from parallel_lab.view import style

DPI = 144  # drawn at one and a half times the size at which it is shown, for dense screens
_CSS_DPI = 96
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
