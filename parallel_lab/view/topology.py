"""Who sends what to whom in each round of a collective: ranks on a circle or in nodes, an arrow for each message."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import cos, dist, hypot, pi, sin
from string import ascii_lowercase

from matplotlib.axes import Axes
from matplotlib.bezier import BezierSegment
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from parallel_lab.plan import Plan
from parallel_lab.view.drawing import WIDTH_IN, Drawing, panels
from parallel_lab.view.style import BAND, FAINT, INK, OKABE_ITO, settings
from parallel_lab.view.text import plural, table

_MOST_PANELS = 8
_BEND, _ROUND_OTHERS = 0.12, 0.4  # arrows bend to the right, so that two messages that cross can be told apart
_FEW_ARROWS = 12  # with more in a panel the parts are not written at the arrows
_NUMBERED_RANKS = 32  # with more, the circles are too small for a number
_FRAME = "#DDDDDD"
_COLORS = [OKABE_ITO[name] for name in ("blue", "vermillion", "green", "purple", "orange", "sky")]
_INSIDE, _BETWEEN = OKABE_ITO["blue"], OKABE_ITO["vermillion"]

Place = tuple[float, float]
Pair = tuple[int, int]  # sender and receiver
Messages = dict[Pair, list[int]]  # the parts that each pair exchanges


@settings()
def topology(
    plan: Plan, title: str | None = None, *, ranks_per_node: int | None = None, names: Sequence[str] | None = None
) -> Drawing:
    """Draws the messages of `plan`, a panel per round, in at most eight panels.

    An arrow is written with what it carries, near its sender, where there is room: the letters of the leaves that the
    tensor is cut into, S for the whole of one that is not cut, or `names[part]`. With more rounds than panels the first
    seven and the last are drawn, and the text says so.

    Ranks stand on a circle. With `ranks_per_node` they stand in a box for each node, and messages between nodes are
    drawn thicker and in another color than those inside.

    Raises:
        ValueError: The plan has no sends.
    """
    rounds = _rounds(plan)
    if not rounds:
        raise ValueError("this plan sends no message, so there is nothing to draw")
    shown = list(enumerate(rounds))
    if len(shown) > _MOST_PANELS:
        shown = [*shown[: _MOST_PANELS - 1], shown[-1]]
    columns = min(4, len(shown))
    panel_in = min(WIDTH_IN / columns, 3.2)
    figure, axes = panels(len(shown), columns, panel_in * columns, panel_in + 0.2, title)
    names = names or _letters(plan)
    for ax, (number, messages) in zip(axes, shown, strict=True):
        _panel(ax, plan.ranks, messages, names, ranks_per_node)
        ways = _ways(messages, ranks_per_node)
        ax.set_title(f"round {number}{ways and ': ' + ways}", color=INK)
    count = sum(len(parts) for messages in rounds for parts in messages.values())
    counts = f"{plural(count, 'message')} in {plural(len(rounds), 'round')}"
    where = f"in nodes of {ranks_per_node}" if ranks_per_node else "on a circle"
    drawn = f"{plural(plan.ranks, 'rank')} {where}; arrows show {counts}."
    hidden = len(rounds) - len(shown)
    note = f"\nnot drawn: {plural(hidden, 'round')} before the last" if hidden else ""
    return Drawing(figure, title, drawn, _text(rounds, ranks_per_node) + note)


def _letters(plan: Plan) -> list[str]:
    """What each part is called: `ab` for one that holds the leaves a and b; S for a tensor that is not cut."""
    extents = getattr(plan, "extents", None) or [(part, part + 1) for part in range(1 + max(op.part for op in plan))]
    count = max(last for _, last in extents)
    if count == 1:
        return ["S"] * len(extents)
    if count > len(ascii_lowercase):
        return [f"{first}" if last - first == 1 else f"{first}-{last - 1}" for first, last in extents]
    spelled = [ascii_lowercase[first:last] for first, last in extents]
    return [word if len(word) < 5 else f"{word[0]}-{word[-1]}" for word in spelled]


def _between(pair: Pair, ranks_per_node: int) -> bool:
    return pair[0] // ranks_per_node != pair[1] // ranks_per_node


def _ways(messages: Messages, ranks_per_node: int | None) -> str:
    """Which kinds of link a round uses."""
    if not ranks_per_node:
        return ""
    kinds = {_between(pair, ranks_per_node) for pair in messages}
    return "inside and between" if len(kinds) == 2 else "between nodes" if True in kinds else "inside nodes"


def _rounds(plan: Plan) -> list[Messages]:
    rounds: dict[tuple[int, int], Messages] = {}
    for op in plan:
        if op.kind == "send" and op.peer >= 0:
            rounds.setdefault((op.mb, op.round), {}).setdefault((op.rank, op.peer), []).append(op.part)
    return [rounds[number] for number in sorted(rounds)]


def _text(rounds: Sequence[Messages], ranks_per_node: int | None) -> str:
    senders = [Counter(sender for (sender, _), parts in messages.items() for _ in parts) for messages in rounds]
    columns = {
        "round": range(len(rounds)),
        "messages": [counts.total() for counts in senders],
        "ranks that send": [len(counts) for counts in senders],
        "most messages from one rank": [max(counts.values()) for counts in senders],
    }
    if ranks_per_node:
        columns["between nodes"] = [
            sum(len(parts) for pair, parts in messages.items() if _between(pair, ranks_per_node)) for messages in rounds
        ]
    return table({heading: list(map(str, numbers)) for heading, numbers in columns.items()})


def _panel(ax: Axes, ranks: int, messages: Messages, names: Sequence[str], ranks_per_node: int | None) -> None:
    """The ranks, and their messages of one round."""
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=_FRAME, linewidth=0.8)
    at = _in_nodes(ranks, ranks_per_node) if ranks_per_node else _on_a_circle(ranks)
    radius = min(0.14, 0.375 * min([dist(at[0], place) for place in at[1:]], default=1.0))
    if ranks_per_node:
        _draw_nodes(ax, at, radius, ranks_per_node)
    circles = [Circle(place, radius, facecolor="white", edgecolor=INK, linewidth=0.9, zorder=3) for place in at]
    for circle in circles:
        ax.add_patch(circle)
    for (sender, receiver), parts in messages.items():
        start, end = at[sender], at[receiver]
        color, width = _COLORS[sender % len(_COLORS)], 1.3
        if ranks_per_node:
            color, width = (_BETWEEN, 1.9) if _between((sender, receiver), ranks_per_node) else (_INSIDE, 1.0)
        look = {"color": color, "linewidth": width, "arrowstyle": "-|>", "mutation_scale": 9}
        # Cut at the circles, so that the head shows.
        ends = {"patchA": circles[sender], "patchB": circles[receiver], "shrinkA": 0, "shrinkB": 0.5}
        bend = _ROUND_OTHERS if any(_in_the_way(place, start, end, radius) for place in at) else _BEND
        ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", zorder=2, **look, **ends))
        if len(messages) <= _FEW_ARROWS:
            _write(ax, start, end, bend, radius, _carried(parts, names), (receiver, sender) in messages)
    for rank, place in enumerate(at if ranks <= _NUMBERED_RANKS else ()):
        ax.text(*place, str(rank), ha="center", va="center", fontsize=8 if ranks <= 16 else 6, zorder=4)


def _on_a_circle(ranks: int) -> list[Place]:
    """Clockwise from the top."""
    return [(sin(2 * pi * rank / ranks), cos(2 * pi * rank / ranks)) for rank in range(ranks)]


def _in_nodes(ranks: int, ranks_per_node: int) -> list[Place]:
    """A column per node, with its ranks from top to bottom."""
    nodes = -(-ranks // ranks_per_node)
    across, down = 2 / max(nodes - 1, 1), 1.7 / max(ranks_per_node - 1, 1)
    left, top = (-1.0 if nodes > 1 else 0.0), (0.75 if ranks_per_node > 1 else 0.0)
    return [(left + across * (r // ranks_per_node), top - down * (r % ranks_per_node)) for r in range(ranks)]


def _draw_nodes(ax: Axes, at: Sequence[Place], radius: float, ranks_per_node: int) -> None:
    margin = 1.7 * radius
    for node, first in enumerate(range(0, len(at), ranks_per_node)):
        (x, top), (_, bottom) = at[first], at[min(first + ranks_per_node, len(at)) - 1]
        corner, height = (x - margin, bottom - margin), top - bottom + 2 * margin
        look = {"facecolor": BAND, "edgecolor": FAINT, "linewidth": 0.8, "zorder": 1}
        ax.add_patch(FancyBboxPatch(corner, 2 * margin, height, boxstyle="round,pad=0,rounding_size=0.08", **look))
        name = {"ha": "center", "va": "bottom", "fontsize": 7, "color": FAINT}
        ax.text(x, top + margin + 0.05, f"node {node}" if len(at) <= 8 * ranks_per_node else str(node), **name)


def _in_the_way(place: Place, start: Place, end: Place, radius: float) -> bool:
    """Whether a rank stands on the straight line between two others."""
    if place in (start, end):
        return False
    (x, y), (x0, y0), (x1, y1) = place, start, end
    length = hypot(x1 - x0, y1 - y0)
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length
    aside = abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length
    return 0 < along < length and aside < radius


def _write(ax: Axes, start: Place, end: Place, bend: float, radius: float, text: str, two: bool) -> None:
    """Writes what an arrow carries beside the circle of its sender, if there is room (for two, if one comes back)."""
    (x0, y0), (x1, y1) = start, end
    length = hypot(x1 - x0, y1 - y0)
    # Half of what the text covers of the arrow, in units of the axes.
    half = ((0.04 + 0.035 * len(text)) * abs(x1 - x0) + 0.08 * abs(y1 - y0)) / length
    share = (radius + half + 0.04) / length
    if 2 * (radius + 2 * half) <= length if two else share < 0.6:
        # The curve that arc3 draws: its control point lies beside the middle.
        control = ((x0 + x1) / 2 + bend * (y1 - y0), (y0 + y1) / 2 - bend * (x1 - x0))
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.9}
        x, y = BezierSegment([start, control, end])(share)
        ax.text(x, y, text, fontsize=7.5, style="italic", ha="center", va="center", color=INK, bbox=paper, zorder=2.5)


def _carried(parts: Iterable[int], names: Sequence[str]) -> str:
    """The names of what an arrow carries; of more than two runs of parts their number."""
    # Within a run, a part and its place in the order differ by the same number.
    runs = [[part for _, part in run] for _, run in groupby(enumerate(sorted(parts)), lambda pair: pair[1] - pair[0])]
    if len(runs) > 2:
        return f"{sum(map(len, runs))} parts"
    return ",".join(names[run[0]] if len(run) == 1 else f"{names[run[0]]}-{names[run[-1]]}" for run in runs)
