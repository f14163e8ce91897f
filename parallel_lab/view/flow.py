"""Boxes with words, in columns, and arrows between them: a way to decide, or what leads to what."""

from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from parallel_lab.view.drawing import WIDTH_IN, Drawing, panels
from parallel_lab.view.style import FAINT, INK, numbered, settings

_BOX = 0.76  # of a column's width; the rest is for arrows
_CHARACTER_IN = 0.083  # of a letter of the words
_LINE_IN = 0.165
Arrow = tuple[str, str] | tuple[str, str, str]


@settings()
def flow(
    columns: Mapping[str, Sequence[str]],
    arrows: Sequence[Arrow],
    *,
    title: str | None = None,
    row_in: float = 0.62,
    width_in: float = WIDTH_IN,
) -> Drawing:
    """Draws the boxes of each of `columns` ({heading: words}) from top to bottom, and the `arrows` between boxes.

    An arrow names the words of two boxes and, as a third, what stands beside it. Empty words keep a place free.

    Raises:
        ValueError: there is nothing to draw, words stand in two boxes, or an arrow names no box.
    """
    places = _places(columns)
    for start, end, *_ in arrows:
        if missing := [words for words in (start, end) if words not in places]:
            raise ValueError(f"no box has the words {missing[0]!r}")
    rows = max(len(column) for column in columns.values())
    figure, (ax,) = panels(1, 1, width_in, row_in * rows + 0.3, title)
    boxes = _write_boxes(ax, places, len(columns), width_in, row_in)
    for start, end, *label in arrows:
        _join(ax, boxes[start], boxes[end], label[0] if label else "")
    for x, heading in enumerate(columns):
        ax.text(x, -0.62, heading, ha="center", va="bottom", fontsize=9, color=INK, weight="bold")
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(rows - 0.4, -0.8))
    ax.axis("off")
    text = "\n".join(f"{start} -> {f'({label[0]}) ' if label else ''}{end}" for start, end, *label in arrows)
    return Drawing(figure, title, f"Boxes and arrows: {', '.join(columns)}.", text)


def _places(columns: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
    """Column and row of each box, by its words."""
    found: dict[str, tuple[int, int]] = {}
    for x, column in enumerate(columns.values()):
        for y, words in enumerate(column):
            if words in found:
                raise ValueError(f"two boxes have the words {words!r}")
            if words:
                found[words] = (x, y)
    if not found:
        raise ValueError("nothing to draw: no box")
    return found


def _write_boxes(ax: Axes, places: Mapping[str, tuple[int, int]], count: int, width_in: float, row_in: float):
    """The patch of each box, with its words in it."""
    looks, boxes = numbered(count), {}
    characters = int(_BOX * width_in / count / _CHARACTER_IN)
    for words, (x, y) in places.items():
        lines = fill(words, characters)
        high = min(0.86, (0.14 + _LINE_IN * (lines.count("\n") + 1)) / row_in)
        look = {"facecolor": f"{looks[x].color}30", "edgecolor": looks[x].color, "linewidth": 1.0}
        box = FancyBboxPatch(
            (x - _BOX / 2, y - high / 2), _BOX, high, boxstyle="round,pad=0,rounding_size=0.04", **look
        )
        boxes[words] = ax.add_patch(box)
        ax.text(x, y, lines, ha="center", va="center", fontsize=7.5, color=INK)
    return boxes


def _join(ax: Axes, start: FancyBboxPatch, end: FancyBboxPatch, label: str) -> None:
    """An arrow down in one column, and from side to side between columns."""
    (left, top, wide, high), (x, y, other_wide, other_high) = (box.get_bbox().bounds for box in (start, end))
    if left == x:
        here, there = (left + wide / 2, top + high), (x + other_wide / 2, y)
        beside, place = (here[0] + 0.015, (here[1] + there[1]) / 2), ("left", "center")
    else:
        here, there = (left + wide, top + high / 2), (x, y + other_high / 2)
        beside, place = ((here[0] + there[0]) / 2, (here[1] + there[1]) / 2 - 0.04), ("center", "bottom")
    ax.annotate("", there, here, arrowprops={"arrowstyle": "-|>", "color": FAINT, "shrinkA": 0, "shrinkB": 0})
    ax.text(*beside, label, fontsize=7, color=FAINT, ha=place[0], va=place[1])
