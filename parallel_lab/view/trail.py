"""The stops of a path as boxes in rows: how much of each is done, what is due there, and which one is next."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from parallel_lab.trace.units import table
from parallel_lab.view.drawing import WIDTH_IN, Drawing, panels
from parallel_lab.view.style import BAND, FAINT, INK, OKABE_ITO, Look, settings

_ROW_IN = 0.92
_WIDE, _HIGH = 0.9, 0.78  # of a box, in shares of its place
_DONE = Look(OKABE_ITO["green"], "//")
_LETTERS_A_LINE = 28


@dataclass(frozen=True)
class Stop:
    """A stop of the path.

    Attributes:
        name: What stands in its box.
        done: How much of it is done.
        of: How much there is.
        due: How much is to be repeated there.
        is_next: Whether the way goes on here.
    """

    name: str
    done: int
    of: int
    due: int = 0
    is_next: bool = False

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return self.done / self.of if self.of else 0.0

    @property
    def words(self) -> str:
        """What its box says below the name."""
        due = f" · {self.due} due" if self.due else ""
        return f"{self.done} of {self.of} done{due}" if self.of else f"to read{due}"


@settings()
def trail(stops: Sequence[Stop], *, across: int = 4, title: str | None = None, text: str = "") -> Drawing:
    """Draws the stops in rows, each a box whose lower edge fills up with what is done.

    A stop where something is due has an orange edge, the next one a thick red edge and an arrow.

    Args:
        stops: in their order; rows are read from left to right.
        across: how many stand in a row.
        title: above the picture.
        text: the numbers in text; without, a table of the stops.

    Raises:
        ValueError: there is no stop.
    """
    if not stops:
        raise ValueError("nothing to draw: no stop")
    rows = -(-len(stops) // across)
    figure, (ax,) = panels(1, 1, WIDTH_IN, _ROW_IN * rows + 0.2, title)
    for place, stop in enumerate(stops):
        _box(ax, stop, place % across, place // across)
    ax.set(xlim=(-0.5, across - 0.5), ylim=(rows - 0.5, -0.5))
    ax.axis("off")
    columns = {"stop": [stop.name for stop in stops], "state": [stop.words for stop in stops]}
    columns["next"] = ["here" if stop.is_next else "" for stop in stops]
    done, count = sum(stop.done for stop in stops), sum(stop.of for stop in stops)
    due = sum(stop.due for stop in stops)
    shown = f"A path of {len(stops)} stops: {done} of {count} done, {due} due."
    return Drawing(figure, title, shown, text or table(columns))


def _box(ax: Axes, stop: Stop, x: int, y: int) -> None:
    """A box: the name, what is done as words and as a bar along its lower edge."""
    left, top = x - _WIDE / 2, y - _HIGH / 2
    edge, width = (OKABE_ITO["orange"], 1.6) if stop.due else (FAINT, 0.8)
    if stop.is_next:
        edge, width = OKABE_ITO["vermillion"], 2.6
    ground = "#FFFFFF" if stop.share < 1 else f"{OKABE_ITO['green']}22"
    ax.add_patch(Rectangle((left, top), _WIDE, _HIGH, facecolor=ground, edgecolor=edge, linewidth=width))
    bar = (left + 0.02, top + _HIGH - 0.14)
    ax.add_patch(Rectangle(bar, _WIDE - 0.04, 0.1, facecolor=BAND, edgecolor=FAINT, linewidth=0.4))
    if stop.share:
        ax.add_patch(Rectangle(bar, (_WIDE - 0.04) * stop.share, 0.1, linewidth=0.4, **_DONE.area()))
    ax.text(left + 0.03, top + 0.06, fill(stop.name, _LETTERS_A_LINE), ha="left", va="top", fontsize=7.6, color=INK)
    said = f"next ▸ {stop.words}" if stop.is_next else stop.words
    ax.text(left + 0.03, top + _HIGH - 0.18, said, ha="left", va="bottom", fontsize=7, color=INK)
