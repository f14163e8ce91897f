"""A grid of cells with a word in each: who holds which chunk, or which algorithm wins where."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from parallel_lab.view.drawing import WIDTH_IN, Drawing, check_sheets, label_outer, label_sheet, panels
from parallel_lab.view.style import FAINT, INK, Look, numbered, settings
from parallel_lab.view.text import table, titled

Cells = Sequence[Sequence[str]]
_HALO = [withStroke(linewidth=2.0, foreground="white", alpha=0.9)]
_EMPTY: dict[str, Any] = {"facecolor": "#FFFFFF", "edgecolor": FAINT}
_TEXT_WIDTH = 115  # characters of a line of text


def grid(
    sheets: Mapping[str, Cells],
    rows: Sequence[str],
    columns: Sequence[str],
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
    check_sheets(sheets, rows, columns, "words")
    looks = _looks(sheets, by)
    across = min(across, len(sheets))
    with settings():
        row_in = max(0.2, min(0.32, 3.4 / len(rows)))
        figure, axes = panels(len(sheets), across, width_in, 0.75 + row_in * len(rows), title)
        longest = max((len(line) for word in looks for line in word.split("\n")), default=1)
        size = max(5.5, min(8.0, 62 * width_in / across / len(columns) / longest / 0.75))
        for ax, (heading, cells) in zip(axes, sheets.items(), strict=True):
            _sheet(ax, cells, looks, size)
            label_sheet(ax, heading, rows, columns, 7.0)
        label_outer(axes, across, xlabel, ylabel)
    text = _text(sheets, rows, columns, across)
    made = f"Grid of {ylabel or 'rows'} by {xlabel or 'columns'}: {', '.join(sheets)}."
    return Drawing(figure, alt=titled(title, made), text=text)


def _looks(sheets: Mapping[str, Cells], by: Callable[[str], str]) -> dict[str, Look]:
    """The look of each word; words that `by` puts together share one."""
    words = sorted({word for cells in sheets.values() for row in cells for word in row if word})
    kinds = list(dict.fromkeys(map(by, words)))
    of_kind = dict(zip(kinds, numbered(len(kinds)), strict=True))
    return {word: of_kind[by(word)] for word in words}


def _sheet(ax: Axes, cells: Cells, looks: Mapping[str, Look], size: float) -> None:
    for y, row in enumerate(cells):
        for x, word in enumerate(row):
            area = looks[word].area(dense=1) if word else _EMPTY
            ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, linewidth=0.4, alpha=0.75, **area))
            ax.text(x, y, word, ha="center", va="center", fontsize=size, color=INK, path_effects=_HALO)
    ax.set(xlim=(-0.5, len(cells[0]) - 0.5), ylim=(len(cells) - 0.5, -0.5))


def _text(sheets: Mapping[str, Cells], rows: Sequence[str], columns: Sequence[str], across: int) -> str:
    """Each panel as a table under its heading, a dash where a cell is empty; side by side where they fit."""
    blocks = []
    for heading, cells in sheets.items():
        words = {name: [row[x] or "-" for row in cells] for x, name in enumerate(columns)}
        lines = [heading, *table({"": list(rows), **words})]
        width = max(map(len, lines))
        blocks.append([line.ljust(width) for line in lines])
    fitting = min(across, max(1, _TEXT_WIDTH // (3 + max(len(block[0]) for block in blocks))))
    bands = [blocks[i : i + fitting] for i in range(0, len(blocks), fitting)]
    return "\n\n".join("\n".join("   ".join(parts).rstrip() for parts in zip(*band, strict=True)) for band in bands)
