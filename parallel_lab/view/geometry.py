"""Heights of the bands, lanes and rows of a timeline, in inches from the top of the first band."""

from dataclasses import dataclass

from parallel_lab.plan import COMPUTE
from parallel_lab.view.layout import Box, Layout, lane_name

MEMORY = "memory"  # the strip of bytes held, below the lanes of a band
_COMPUTE, _COMMUNICATE, _MEMORY = 0.28, 0.17, 0.26
_INSET, _GAP = 0.03, 0.10  # within a band above and below its lanes; between bands
_TALLEST = 7.0  # of all bands together; with more ranks the lanes get lower
_LOWEST = 0.36  # but not below this share of their height
_TEXT_IN = 0.125  # the height that a line of the smallest text needs


@dataclass(frozen=True)
class Geometry:
    """Where bands and lanes lie.

    Attributes:
        lanes: for each lane, and for `MEMORY` where there is a strip, (top, bottom) within the band.
        rows: for each lane, how many rows share it.
        pitch, gap: from band to band, and the free space between them.
        height: of all bands together.
    """

    lanes: dict[str, tuple[float, float]]
    rows: dict[str, int]
    pitch: float
    gap: float
    height: float

    @classmethod
    def of(cls, layout: Layout, memory: bool) -> "Geometry":
        """Bands for `layout`, with room for a strip of memory where `memory` is true."""
        heights = {lane: _COMPUTE if lane == COMPUTE else _COMMUNICATE for lane in layout.rows}
        # Two rows in a lane make it one and a half times as high, not twice.
        full = {lane: heights[lane] * (1 + rows) / 2 for lane, rows in layout.rows.items()}
        full |= {MEMORY: _MEMORY} if memory else {}
        wanted = layout.ranks * (sum(full.values()) + 2 * _INSET + _GAP)
        shrink = max(min(1.0, _TALLEST / max(wanted, 1e-9)), _LOWEST)
        top, lanes = _INSET * shrink, {}
        for lane, height in full.items():
            above = _INSET * shrink if lane == MEMORY else 0.0
            lanes[lane] = (top + above, top + height * shrink)
            top += height * shrink
        gap = _GAP * shrink
        pitch = top + _INSET * shrink + gap
        return cls(lanes, layout.rows, pitch, gap, max(layout.ranks * pitch - gap, 0.3))

    def band(self, rank: int) -> tuple[float, float]:
        """Top and bottom of a rank's band."""
        return rank * self.pitch, (rank + 1) * self.pitch - self.gap

    def lane(self, rank: int, lane: str) -> tuple[float, float]:
        """Top and bottom of a lane of a rank."""
        top, bottom = self.lanes[lane]
        return rank * self.pitch + top, rank * self.pitch + bottom

    def box(self, box: Box) -> tuple[float, float]:
        """Top and bottom of a box."""
        top, bottom = self.lane(box.rank, box.lane)
        row = (bottom - top) / self.rows[box.lane]
        return top + box.row * row, top + (box.row + 1) * row

    def lane_names(self) -> list[tuple[str, float]]:
        """(name, middle within the band) for each lane; none when there is one lane only, or no room for text."""
        if len(self.lanes) == 1 or not all(fits(bottom - top) for top, bottom in self.lanes.values()):
            return []
        return [(lane_name(lane, self.lanes), (top + bottom) / 2) for lane, (top, bottom) in self.lanes.items()]


def fits(height: float) -> bool:
    """Whether a line of small text fits into `height` inches."""
    return height >= _TEXT_IN
