"""Where the bands of the ranks and their lanes lie in the static picture, in inches, so that text always fits."""

from parallel_lab.plan import COMPUTE
from parallel_lab.view.layout import Box, Layout

MEMORY = "memory"  # the strip of bytes held, below the lanes of a band
TEXT_IN = 0.125  # the height that a line of the smallest text needs
_HEIGHTS = {COMPUTE: 0.28, MEMORY: 0.26}  # of lanes
_COMMUNICATE = 0.17
_INSET, _GAP = 0.03, 0.10  # within a band above and below its lanes; between bands
_TALLEST = 7.0  # of all bands together; with more ranks the lanes get lower
_LOWEST = 0.36  # but not below this share of their height


class Bands:
    """Places as (top, bottom), in inches from the top of the first band."""

    def __init__(self, layout: Layout, memory: bool) -> None:
        self.rows = layout.rows | ({MEMORY: 1} if memory else {})
        # Two rows in a lane make it one and a half times as high, not twice.
        full = {lane: _HEIGHTS.get(lane, _COMMUNICATE) * (1 + rows) / 2 for lane, rows in self.rows.items()}
        wanted = layout.ranks * (sum(full.values()) + 2 * _INSET + _GAP)
        shrink = max(min(1.0, _TALLEST / max(wanted, 1e-9)), _LOWEST)
        self.lanes: dict[str, tuple[float, float]] = {}  # (top, bottom) within a band
        top = _INSET * shrink
        for lane, height in full.items():
            above = _INSET * shrink if lane == MEMORY else 0.0
            self.lanes[lane] = (top + above, top + height * shrink)
            top += height * shrink
        self.gap = _GAP * shrink
        self.pitch = top + _INSET * shrink + self.gap  # from band to band
        self.height = max(layout.ranks * self.pitch - self.gap, 0.3)
        lowest = min(bottom - top for top, bottom in self.lanes.values())
        self.named = len(self.lanes) > 1 and lowest >= TEXT_IN  # whether lanes need a name, and there is room for it

    def band(self, rank: int) -> tuple[float, float]:
        """The band of a rank."""
        return rank * self.pitch, (rank + 1) * self.pitch - self.gap

    def lane(self, rank: int, lane: str) -> tuple[float, float]:
        """A lane in it."""
        top, bottom = self.lanes[lane]
        return rank * self.pitch + top, rank * self.pitch + bottom

    def box(self, box: Box) -> tuple[float, float]:
        """The row of the lane in which a box lies."""
        top, bottom = self.lane(box.rank, box.lane)
        row = (bottom - top) / self.rows[box.lane]
        return top + box.row * row, top + (box.row + 1) * row

    def corners(self, box: Box, left: float, right: float) -> tuple[tuple[float, float], ...]:
        """The same from `left` to `right`, as (x, y) of each corner."""
        top, bottom = self.box(box)
        return (left, top), (right, top), (right, bottom), (left, bottom)
