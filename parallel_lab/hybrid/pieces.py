"""Which elements of a whole parameter a rank holds, and the copying of what two different cuts have in common.

ZeRO cuts a parameter into stretches: elements [start, stop) of the flattened whole, as in `data_parallel.checkpoint`.
Tensor parallelism cuts a matrix by rows, which is a stretch too, or by columns, which is not. Columns are a stretch of
another order: see the flattened whole as a table of rows of `width` elements, keep columns [left, right) of it, and
count those row by row. Every stretch, of the whole or of some columns, is at most three rectangles of the table: the
end of a row, whole rows, the beginning of a row. What two pieces share are the places where their rectangles meet, so
it is copied rectangle by rectangle, however long the columns are, and nothing else is read.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor

from parallel_lab.tensor_parallel.linear import Cut


class Rectangle(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of a table; `at` is where they begin in a vector of its elements."""

    top: int
    bottom: int
    left: int
    right: int
    at: int

    def view(self, vector: Tensor, inner: "Rectangle") -> Tensor:
        """The part `inner` of this rectangle, in a vector that holds this one from `at` on."""
        rows, columns = self.bottom - self.top, self.right - self.left
        table = vector[self.at : self.at + rows * columns].view(rows, columns)
        return table[inner.top - self.top : inner.bottom - self.top, inner.left - self.left : inner.right - self.left]

    def meet(self, other: "Rectangle") -> "Rectangle | None":
        """What both have."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return Rectangle(top, bottom, left, right, 0) if top < bottom and left < right else None


class Place(NamedTuple):
    """Where a vector of elements stands in a whole parameter: elements [start, stop) of it, flattened.

    With `columns`, (left, right, width), they are counted row by row in columns [left, right) of the flattened whole,
    seen as a table of rows of `width` elements.
    """

    start: int
    stop: int
    columns: tuple[int, int, int] | None = None

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return self.stop - self.start

    @classmethod
    def of(cls, shape: Sequence[int], cut: Cut | None, rank: int, start: int, stop: int) -> "Place":
        """The place of elements [start, stop) of what `rank` holds, flattened, of a parameter of `shape` cut by `cut`.

        Zeros that pad the last ranks' parts are left out: they come last, and stand nowhere in the whole.
        """
        if cut is None:
            return cls(start, stop)
        inner = prod(shape[cut.dim + 1 :])
        first = min(cut.size, rank // cut.copies * cut.length())
        left, right = first * inner, min(cut.size, first + cut.length()) * inner
        if prod(shape[: cut.dim]) == 1:
            return cls(left + min(start, right - left), left + min(stop, right - left))
        return cls(start, stop, (left, right, cut.size * inner))

    def rectangles(self, width: int) -> Iterator[Rectangle]:
        """The rectangles of the table of rows of `width` elements, three at most."""
        left, right = self.columns[:2] if self.columns else (0, width)
        size, k = right - left, self.start
        while k < self.stop:
            row, column = divmod(k, size)
            rows, columns = 1, min(size - column, self.stop - k)
            if columns == size:
                rows = (self.stop - k) // size
            yield Rectangle(row, row + rows, left + column, left + column + columns, k - self.start)
            k += rows * columns


class Shared(NamedTuple):
    """A rectangle that two pieces of a parameter share, and the rectangles of each in which it lies."""

    both: Rectangle
    mine: Rectangle
    theirs: Rectangle

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return (self.both.bottom - self.both.top) * (self.both.right - self.both.left)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copies it into the vector of my piece from that of theirs."""
        self.mine.view(target, self.both).copy_(self.theirs.view(source, self.both))


def shared(mine: Place, theirs: Place, size: int) -> list[Shared]:
    """What two pieces of a parameter of `size` elements have in common.

    Raises:
        ValueError: both are columns, of tables of different widths.
    """
    widths = {place.columns[2] for place in (mine, theirs) if place.columns} or {max(1, size)}
    if len(widths) > 1:
        raise ValueError(f"one was cut along another dimension than the other: rows of {sorted(widths)} elements")
    (width,) = widths
    pairs = ((a, b) for a in mine.rectangles(width) for b in theirs.rectangles(width))
    return [Shared(both, a, b) for a, b in pairs if (both := a.meet(b))]
