"""One look for every picture: colors that color-blind readers can tell apart, and hatching for those who see none.

Colors: Okabe and Ito, "Color Universal Design" (2008), with the gray that is usual beside them. A kind of work keeps
its color and hatching in every figure of the course.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

from matplotlib import style

OKABE_ITO = {
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "yellow": "#F0E442",
    "gray": "#999999",
    "black": "#000000",
}
HATCHES = ("", "//", "\\\\", "xx", "--", "||", "++", "..")
INK, FAINT, BAND = "#222222", "#666666", "#F4F4F4"
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_TICKS = {"color": FAINT, "labelcolor": INK, "labelsize": 7.5, "major.size": 3}
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.usetex": False,
    "text.color": INK,
    "figure.titlesize": 10,
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
} | {f"{axis}tick.{name}": value for axis in "xy" for name, value in _TICKS.items()}


class Look(NamedTuple):
    """How a kind is drawn."""

    color: str  # of the area, as #RRGGBB
    hatch: str  # in matplotlib's letters

    @property
    def ink(self) -> str:
        """The color of the hatching: white on dark colors, nearly black on light ones."""
        red, green, blue = (int(self.color[at : at + 2], 16) for at in (1, 3, 5))
        return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#FFFFFF"

    def area(self, dense: int = 2) -> dict[str, Any]:
        """What matplotlib draws an area of this look with; `dense` repeats the hatching."""
        return {"facecolor": self.color, "edgecolor": self.ink, "hatch": dense * self.hatch or None}


KINDS = {
    "F": Look(OKABE_ITO["sky"], ""),
    "B": Look(OKABE_ITO["orange"], "//"),
    "I": Look(OKABE_ITO["yellow"], "\\\\"),
    "W": Look(OKABE_ITO["green"], "xx"),
    "send": Look(OKABE_ITO["blue"], ""),
    "recv": Look(OKABE_ITO["purple"], "||"),
    "recv_reduce": Look(OKABE_ITO["vermillion"], "++"),
    "all_reduce": Look(OKABE_ITO["vermillion"], "\\\\"),
    "all_gather": Look(OKABE_ITO["green"], "--"),
    "reduce_scatter": Look(OKABE_ITO["purple"], "//"),
    "broadcast": Look(OKABE_ITO["yellow"], ".."),
    "reduce": Look(OKABE_ITO["orange"], ".."),
    "all_to_all": Look(OKABE_ITO["blue"], "xx"),
    "barrier": Look(OKABE_ITO["gray"], ".."),
    "pull": Look(OKABE_ITO["yellow"], "--"),
    "gradient": Look(OKABE_ITO["purple"], ".."),
    "push": Look(OKABE_ITO["sky"], "//"),
    "dropped": Look(OKABE_ITO["gray"], "xx"),
    "meet": Look(OKABE_ITO["vermillion"], "xx"),
    "update": Look(OKABE_ITO["gray"], "||"),
    "free": Look(OKABE_ITO["black"], ""),
    "parameters": Look(OKABE_ITO["blue"], "--"),
    "gradients": Look(OKABE_ITO["vermillion"], "//"),
    "optimizer_state": Look(OKABE_ITO["green"], "\\\\"),
    "buckets": Look(OKABE_ITO["yellow"], "xx"),
    "unsharded": Look(OKABE_ITO["purple"], "xx"),
    "activations": Look(OKABE_ITO["sky"], "xx"),
    "all": Look(OKABE_ITO["gray"], ""),
}
# Kinds with a name of their own choosing get a look from what is left.
_SPARE = tuple(
    look
    for look in (Look(color, hatch) for hatch, color in product(HATCHES, OKABE_ITO.values()) if color != "#000000")
    if look not in KINDS.values()
)


def looks(kinds: Sequence[str]) -> dict[str, Look]:
    """The look of each of `kinds` in their order, all different.

    Kinds that the course names have a fixed look. Any other gets one by a hash of its name, the same in every
    process; where two of them meet at one look, the later in the alphabet moves to the next free one.
    """
    found = {kind: KINDS[kind] for kind in kinds if kind in KINDS}
    for kind in sorted(set(kinds) - set(found)):
        at = zlib.crc32(kind.encode()) % len(_SPARE)
        free = (look for look in _SPARE[at:] + _SPARE[:at] if look not in found.values())
        found[kind] = next(free, _SPARE[at])
    return {kind: found[kind] for kind in kinds}


def numbered(count: int) -> list[Look]:
    """`count` looks for things without a kind of their own (lines, bars, shards), told apart by color, then hatch."""
    colors = [color for name, color in OKABE_ITO.items() if name not in ("yellow", "black")]
    return [
        Look(colors[n % len(colors)], HATCHES[(n % len(colors) + n // len(colors)) % len(HATCHES)])
        for n in range(count)
    ]


def order(kinds: Iterable[str]) -> list[str]:
    """`kinds` without repetition: those with a fixed look first, in its order, then the others as they came."""
    seen = dict.fromkeys(kinds)
    return [kind for kind in KINDS if kind in seen] + [kind for kind in seen if kind not in KINDS]


def shorten(text: str, most: int = 28) -> str:
    """`text` in at most `most` characters, cut in the middle, where names differ least."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


@contextmanager
def settings() -> Iterator[None]:
    """Fixed drawing settings, so that a reader's own matplotlib style changes no picture; also a decorator."""
    with style.context(_SETTINGS, after_reset=True):
        yield
