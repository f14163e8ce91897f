"""Who sends what to whom in each round of a collective: the ranks on a circle, an arrow for each message."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import cos, hypot, pi, sin

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch

from parallel_lab.plan import Plan
from parallel_lab.view.drawing import WIDTH_IN, Drawing, panels
from parallel_lab.view.style import INK, OKABE_ITO, settings
from parallel_lab.view.text import plural, table, titled

_MOST_PANELS = 8
_BEND = 0.12  # arrows bend to the right, so that two messages that cross can be told apart
_FEW_ARROWS = 12  # with more in a panel the parts are not written at the arrows
_NUMBERED_RANKS = 32  # with more, the circles are too small for a number
_COLOURS = [OKABE_ITO[name] for name in ("blue", "vermillion", "green", "purple", "orange", "sky")]

Messages = dict[tuple[int, int], list[int]]


def topology(plan: Plan, title: str | None = None) -> Drawing:
    """Draws the messages of `plan`, a panel a round, in at most eight panels.

    An arrow is written with the parts that it carries, near its sender, where there is room. With more rounds than
    panels the first seven and the last are drawn, and the text says so.

    Raises:
        ValueError: The plan has no sends.
    """
    rounds = _rounds(plan)
    if not rounds:
        raise ValueError("this plan sends no message, so there is nothing to draw")
    shown = list(range(len(rounds)))
    if len(shown) > _MOST_PANELS:
        shown = [*shown[: _MOST_PANELS - 1], shown[-1]]
    with settings():
        columns = min(4, len(shown))
        panel_in = min(WIDTH_IN / columns, 3.2)
        figure, axes = panels(len(shown), columns, panel_in * columns, panel_in + 0.2, title)
        for ax, number in zip(axes, shown, strict=True):
            _panel(ax, plan.ranks, rounds[number])
            ax.set_title(f"round {number}", fontsize=8.5, color=INK)
    sends = [Counter({pair: len(parts) for pair, parts in messages.items()}) for messages in rounds]
    counts = f"{plural(sum(map(Counter.total, sends)), 'message')} in {plural(len(rounds), 'round')}"
    alt = titled(title, f"{plural(plan.ranks, 'rank')} on a circle; arrows show {counts}.")
    hidden = len(rounds) - len(shown)
    note = f"\nnot drawn: {plural(hidden, 'round')} before the last" if hidden else ""
    return Drawing(figure, alt=alt, text="\n".join(table(_rows(sends))) + note)


def _rounds(plan: Plan) -> list[Messages]:
    """For each round: the parts that each pair of (sender, receiver) exchanges."""
    rounds: dict[tuple[int, int], Messages] = {}
    for op in plan:
        if op.kind == "send" and op.peer >= 0:
            rounds.setdefault((op.mb, op.round), {}).setdefault((op.rank, op.peer), []).append(op.part)
    return [rounds[number] for number in sorted(rounds)]


def _rows(sends: Sequence[Counter]) -> dict[str, list[str]]:
    by_sender = [Counter(sender for sender, _ in pairs.elements()) for pairs in sends]
    return {
        "round": [str(number) for number in range(len(sends))],
        "messages": [str(pairs.total()) for pairs in sends],
        "ranks that send": [str(len(each)) for each in by_sender],
        "most messages from one rank": [str(max(each.values())) for each in by_sender],
    }


def _panel(ax: Axes, ranks: int, messages: Messages) -> None:
    """Ranks clockwise from the top, and their messages of one round."""
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
    ax.axis("off")
    at = [(sin(2 * pi * rank / ranks), cos(2 * pi * rank / ranks)) for rank in range(ranks)]
    radius = min(0.14, 0.75 * sin(pi / max(ranks, 2)))
    circles = [Circle(place, radius, facecolor="white", edgecolor=INK, linewidth=0.9, zorder=3) for place in at]
    for circle in circles:
        ax.add_patch(circle)
    for sender, receiver in messages:
        _arrow(ax, circles[sender], circles[receiver], _COLOURS[sender % len(_COLOURS)])
    if len(messages) <= _FEW_ARROWS:
        _write_parts(ax, at, radius, messages)
    for rank, place in enumerate(at if ranks <= _NUMBERED_RANKS else ()):
        ax.text(*place, str(rank), ha="center", va="center", fontsize=8 if ranks <= 16 else 6, zorder=4)


def _arrow(ax: Axes, start: Circle, end: Circle, color: str) -> None:
    bend = {"connectionstyle": f"arc3,rad={_BEND}", "arrowstyle": "-|>", "mutation_scale": 9}
    # Cut at the circles, so that the head shows.
    ends = {"patchA": start, "patchB": end, "shrinkA": 0, "shrinkB": 0.5}
    ax.add_patch(FancyArrowPatch(start.center, end.center, color=color, linewidth=1.3, zorder=2, **bend, **ends))


def _write_parts(ax: Axes, at: list[tuple], radius: float, messages: Messages) -> None:
    """Writes on each arrow what it carries, near its sender, at the first place that is free; nothing where none is."""
    taken: list[tuple] = []
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    for (sender, receiver), parts in messages.items():
        text = _short(parts)
        wide = 0.05 + 0.026 * len(text)  # half the width of the text, in units of the axes
        for share in (0.28, 0.36, 0.44, 0.52, 0.6, 0.68):
            x, y = _on_arrow(at[sender], at[receiver], share)
            off_circles = all(hypot(x - cx, y - cy) > radius + wide for cx, cy in at)
            if off_circles and all(abs(x - tx) > wide + tw or abs(y - ty) > 0.13 for tx, ty, tw in taken):
                ax.text(x, y, text, fontsize=6.5, ha="center", va="center", color=INK, bbox=paper, zorder=2.5)
                taken.append((x, y, wide))
                break


def _on_arrow(start: tuple, end: tuple, share: float) -> tuple[float, float]:
    """The point at `share` of the quadratic curve that arc3 draws; its control point lies beside the middle."""
    (x0, y0), (x1, y1) = start, end
    control = ((x0 + x1) / 2 + _BEND * (y1 - y0), (y0 + y1) / 2 - _BEND * (x1 - x0))
    weights = ((1 - share) ** 2, 2 * share * (1 - share), share**2)
    x, y = (sum(w * p for w, p in zip(weights, axis, strict=True)) for axis in zip(start, control, end, strict=True))
    return x, y


def _short(parts: Iterable[int]) -> str:
    """Parts as runs: `0-3`, `1,3`; with more than two runs their number."""
    # Within a run, a part and its place in the order differ by the same number.
    runs = [[part for _, part in run] for _, run in groupby(enumerate(sorted(parts)), lambda pair: pair[1] - pair[0])]
    if len(runs) > 2:
        return f"{sum(map(len, runs))} parts"
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
