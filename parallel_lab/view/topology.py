"""Who sends what to whom in each round of a collective: the ranks on a circle, an arrow for each message."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import cos, hypot, pi, sin

from matplotlib.axes import Axes
from matplotlib.bezier import BezierSegment
from matplotlib.patches import Circle, FancyArrowPatch

from parallel_lab.plan import Plan
from parallel_lab.view.drawing import WIDTH_IN, Drawing, panels
from parallel_lab.view.style import INK, OKABE_ITO, settings
from parallel_lab.view.text import plural, table

_MOST_PANELS = 8
_BEND = 0.12  # arrows bend to the right, so that two messages that cross can be told apart
_FEW_ARROWS = 12  # with more in a panel the parts are not written at the arrows
_NUMBERED_RANKS = 32  # with more, the circles are too small for a number
_COLOURS = [OKABE_ITO[name] for name in ("blue", "vermillion", "green", "purple", "orange", "sky")]

Messages = dict[tuple[int, int], list[int]]  # the parts that each pair of (sender, receiver) exchanges


@settings()
def topology(plan: Plan, title: str | None = None) -> Drawing:
    """Draws the messages of `plan`, a panel per round, in at most eight panels.

    An arrow is written with the parts that it carries, near its sender, where there is room. With more rounds than
    panels the first seven and the last are drawn, and the text says so.

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
    for ax, (number, messages) in zip(axes, shown, strict=True):
        _panel(ax, plan.ranks, messages)
        ax.set_title(f"round {number}", color=INK)
    count = sum(len(parts) for messages in rounds for parts in messages.values())
    counts = f"{plural(count, 'message')} in {plural(len(rounds), 'round')}"
    drawn = f"{plural(plan.ranks, 'rank')} on a circle; arrows show {counts}."
    hidden = len(rounds) - len(shown)
    note = f"\nnot drawn: {plural(hidden, 'round')} before the last" if hidden else ""
    return Drawing(figure, title, drawn, _text(rounds) + note)


def _rounds(plan: Plan) -> list[Messages]:
    rounds: dict[tuple[int, int], Messages] = {}
    for op in plan:
        if op.kind == "send" and op.peer >= 0:
            rounds.setdefault((op.mb, op.round), {}).setdefault((op.rank, op.peer), []).append(op.part)
    return [rounds[number] for number in sorted(rounds)]


def _text(rounds: Sequence[Messages]) -> str:
    senders = [Counter(sender for (sender, _), parts in messages.items() for _ in parts) for messages in rounds]
    columns = {
        "round": range(len(rounds)),
        "messages": [counts.total() for counts in senders],
        "ranks that send": [len(counts) for counts in senders],
        "most messages from one rank": [max(counts.values()) for counts in senders],
    }
    return table({heading: list(map(str, numbers)) for heading, numbers in columns.items()})


def _panel(ax: Axes, ranks: int, messages: Messages) -> None:
    """Ranks clockwise from the top, and their messages of one round."""
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
    ax.axis("off")
    at = [(sin(2 * pi * rank / ranks), cos(2 * pi * rank / ranks)) for rank in range(ranks)]
    radius = min(0.14, 0.75 * sin(pi / max(ranks, 2)))
    circles = [Circle(place, radius, facecolor="white", edgecolor=INK, linewidth=0.9, zorder=3) for place in at]
    for circle in circles:
        ax.add_patch(circle)
    for (sender, receiver), parts in messages.items():
        look = {"color": _COLOURS[sender % len(_COLOURS)], "linewidth": 1.3, "arrowstyle": "-|>", "mutation_scale": 9}
        # Cut at the circles, so that the head shows.
        ends = {"patchA": circles[sender], "patchB": circles[receiver], "shrinkA": 0, "shrinkB": 0.5}
        bend = f"arc3,rad={_BEND}"
        ax.add_patch(FancyArrowPatch(at[sender], at[receiver], connectionstyle=bend, zorder=2, **look, **ends))
        if len(messages) <= _FEW_ARROWS:
            _write_parts(ax, at[sender], at[receiver], radius, _short(parts))
    for rank, place in enumerate(at if ranks <= _NUMBERED_RANKS else ()):
        ax.text(*place, str(rank), ha="center", va="center", fontsize=8 if ranks <= 16 else 6, zorder=4)


def _write_parts(ax: Axes, start: tuple, end: tuple, radius: float, text: str) -> None:
    """Writes what an arrow carries beside the circle of its sender, unless the circles leave no room."""
    (x0, y0), (x1, y1) = start, end
    wide = 0.05 + 0.026 * len(text)  # half the width of the text, in units of the axes
    share = (radius + wide + 0.04) / hypot(x1 - x0, y1 - y0)
    if share < 0.6:
        # The curve that arc3 draws: its control point lies beside the middle.
        control = ((x0 + x1) / 2 + _BEND * (y1 - y0), (y0 + y1) / 2 - _BEND * (x1 - x0))
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        x, y = BezierSegment([start, control, end])(share)
        ax.text(x, y, text, fontsize=6.5, ha="center", va="center", color=INK, bbox=paper, zorder=2.5)


def _short(parts: Iterable[int]) -> str:
    """Parts as runs: `0-3`, `1,3`; with more than two runs their number."""
    # Within a run, a part and its place in the order differ by the same number.
    runs = [[part for _, part in run] for _, run in groupby(enumerate(sorted(parts)), lambda pair: pair[1] - pair[0])]
    if len(runs) > 2:
        return f"{sum(map(len, runs))} parts"
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
