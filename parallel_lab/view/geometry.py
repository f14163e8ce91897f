"""Heights of the bands, lanes and rows of a timeline, in inches from the top of the first band."""

from dataclasses import dataclass

from parallel_lab.plan import COMPUTE
from parallel_lab.view.layout import Box, Layout, lane_name

_COMPUTE, _COMMUNICATE, _MEMORY = 0.28, 0.17, 0.26
_INSET, _GAP = 0.03, 0.10  # within a band above and below its lanes; between bands
_TALLEST = 7.0  # of all bands together; with more ranks the lanes get lower
_LOWEST = 0.36  # but not below this share of their height
_TEXT_IN = 0.125  # the height that a line of the smallest text needs


@dataclass(frozen=True)
class Geometry:
    """Where bands and lanes lie.

    Attributes:
        lanes: for each lane, (top, bottom) within the band, in inches.
        rows: for each lane, how many rows share it.
        strip_top, strip_bottom: of the memory strip within the band; equal where there is none.
        pitch, gap: from band to band, and the free space between them.
        height: of all bands together.
    """

    lanes: dict[str, tuple[float, float]]
    rows: dict[str, int]
    strip_top: float
    strip_bottom: float
    pitch: float
    gap: float
    height: float

    @classmethod
    def of(cls, layout: Layout, memory: bool) -> "Geometry":
        """Bands for `layout`, with room for a strip of memory where `memory` is true."""
        heights = {lane: _COMPUTE if lane == COMPUTE else _COMMUNICATE for lane in layout.rows}
        # Two rows in a lane make it one and a half times as high, not twice.
        full = {lane: heights[lane] * (1 + rows) / 2 for lane, rows in layout.rows.items()}
        strip = _MEMORY if memory else 0.0
        wanted = layout.ranks * (sum(full.values()) + strip + 2 * _INSET + _GAP)
        shrink = max(min(1.0, _TALLEST / max(wanted, 1e-9)), _LOWEST)
        top, lanes = _INSET * shrink, {}
        for lane, height in full.items():
            lanes[lane] = (top, top + height * shrink)
            top += height * shrink
        gap = _GAP * shrink
        pitch = top + strip * shrink + _INSET * shrink + gap
        strip_top = top + (0.03 * shrink if memory else 0.0)
        height = max(layout.ranks * pitch - gap, 0.3)
        return cls(lanes, layout.rows, strip_top, top + strip * shrink, pitch, gap, height)

    def band(self, rank: int) -> tuple[float, float]:
        """Top and bottom of a rank's band."""
        return rank * self.pitch, (rank + 1) * self.pitch - self.gap

    def box(self, box: Box) -> tuple[float, float]:
        """Top and bottom of a box."""
        top, bottom = self.lanes[box.lane]
        row = (bottom - top) / self.rows[box.lane]
        start = box.rank * self.pitch + top + box.row * row
        return start, start + row

    def strip(self, rank: int) -> tuple[float, float]:
        """Top and bottom of a rank's memory strip."""
        return rank * self.pitch + self.strip_top, rank * self.pitch + self.strip_bottom

    def lane_names(self, memory: bool) -> list[tuple[str, float]]:
        """(name, middle within the band) for each lane; none when there is one lane only, or no room for text."""
        if len(self.lanes) == 1 and not memory:
            return []
        places = [(lane_name(lane, self.lanes), *span) for lane, span in self.lanes.items()]
        if memory:
            places.append(("memory", self.strip_top, self.strip_bottom))
        if any(not self.fits(bottom - top) for _, top, bottom in places):
            return []
        return [(name, (top + bottom) / 2) for name, top, bottom in places]

    @staticmethod
    def fits(height: float) -> bool:
        """Whether a line of small text fits into `height` inches."""
        return height >= _TEXT_IN
