"""`draw`: one trace, three ways to look at it: a picture with its summary, an interactive canvas, a trace file."""

from collections.abc import Sequence
from pathlib import Path

from parallel_lab.view.canvas import Canvas, payload
from parallel_lab.view.chrome import save_chrome
from parallel_lab.view.drawing import WIDTH_IN, Drawing
from parallel_lab.view.figure import timeline_figure
from parallel_lab.view.layout import band_names, lay_out, trace_of
from parallel_lab.view.text import alt_text, summary

_COLUMNS_PER_IN = 96


class Timeline(Drawing):
    """The picture of a trace; see `Drawing` for what it shows in a notebook.

    Attributes:
        trace: the trace that was drawn; for a plan, its ops in unit slots.
        slots: whether times are slots of a plan.
    """

    def __init__(self, source, title: str | None, names: Sequence[str] | None) -> None:
        self.trace, self.slots = trace_of(source)
        bands = band_names(self.trace, names)
        layout = lay_out(self.trace, int(_COLUMNS_PER_IN * WIDTH_IN))
        figure = timeline_figure(self.trace, layout, title, self.slots, bands)
        shown = alt_text(self.trace, self.trace.simulated, self.slots)
        super().__init__(figure, title, shown, summary(source, names=names))

    def interactive(self) -> Canvas:
        """A canvas to zoom and pan with mouse or keyboard, with a tooltip for each span."""
        return Canvas(data=payload(self.trace, self.slots, self.alt))

    def chrome(self, path: str | Path) -> None:
        """Writes a trace file that Perfetto and chrome://tracing open; a slot of a plan becomes a second."""
        save_chrome(self.trace, path)


def draw(source, *, title: str | None = None, names: Sequence[str] | None = None) -> Timeline:
    """Draws what each rank did, or shall do, over time: one band a rank, computing above communicating.

    `source` is a run, a `Trace`, or a `Plan`, which is drawn in slots of equal length. Where memory was sampled, a
    strip under each band has the bytes held. A notebook shows the picture with a summary below.

    Where a trace was put together from several runs, `names` stand in place of `rank 0`, `rank 1`, ...; 8 characters
    at most are shown. The interactive canvas keeps the numbers.

    Raises:
        TypeError: `source` is none of the three.
        ValueError: there is not one name a rank, or the plan cannot finish.
    """
    return Timeline(source, title, names)
