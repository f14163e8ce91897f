"""Bytes that each rank holds over time, stacked by kind."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_bytes, time_unit
from parallel_lab.view.drawing import WIDTH_IN, Drawing, legend_below, panels, swatches
from parallel_lab.view.layout import band_names, extent, trace_of
from parallel_lab.view.style import INK, looks, order, settings
from parallel_lab.view.text import table

_SCALES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


@settings()
def draw_memory(source, *, names: Sequence[str] | None = None, title: str | None = None) -> Drawing:
    """Draws the bytes that each rank of a run or a trace held, a panel per rank, all to one scale, stacked by kind.

    The text gives each rank's peak and what it was made of. `names` replace `rank 0`, `rank 1` and so on.

    Raises:
        ValueError: the trace has no memory samples, or there is not one name for each rank.
    """
    trace, _ = trace_of(source)
    if not trace.memory:
        raise ValueError("this trace holds no memory samples, so there is no memory to draw")
    names = band_names(trace, names)
    kinds = order(sample.kind for sample in trace.memory)
    peak = max(trace.peak_bytes(rank) for rank in range(trace.ranks))
    scale, unit = next(((s, u) for s, u in _SCALES if peak >= s), _SCALES[-1])
    start_s, end_s = extent(trace)
    unit_s, unit_name = time_unit(end_s - start_s)
    columns = 1 if trace.ranks == 1 else 2 if trace.ranks <= 8 else 4
    figure, axes = panels(trace.ranks, columns, WIDTH_IN, 1.55, title, sharex=True, sharey=True)
    for rank, ax in enumerate(axes):
        _panel(ax, trace, rank, kinds, scale, unit_s)
        ax.set_title(names[rank], color=INK, loc="left")
    figure.supylabel(f"held ({unit})", fontsize=8.5)
    for ax in axes[-columns:]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(f"{'simulated time' if trace.simulated else 'time'} ({unit_name})")
    legend_below(figure, swatches(kinds), kinds)
    shown = f"Bytes held over time by {', '.join(names)}: {', '.join(kinds)}."
    return Drawing(figure, title, shown, _text(trace, kinds, names))


def _panel(ax: Axes, trace: Trace, rank: int, kinds: list[str], scale: float, unit_s: float) -> None:
    """One rank's steps; each level lasts until the next sample, the last until this rank's last span or sample."""
    ax.grid(True)
    start_s, end_s = extent(trace)
    levels = list(trace.held_bytes(rank))
    if not levels:
        return
    last_s, held = levels[-1]
    levels.append((max([last_s, *(s.end_s for s in trace.of(rank))]), held))
    times = (np.array([time_s for time_s, _ in levels]) - start_s) / unit_s
    below = np.zeros(len(levels))
    for kind, look in looks(kinds).items():
        above = below + np.array([held.get(kind, 0) for _, held in levels]) / scale
        ax.fill_between(times, below, above, step="post", linewidth=0.3, **look.area())
        below = above
    ax.set_xlim(0, (end_s - start_s) / unit_s or 1.0)
    ax.set_ylim(bottom=0)


def _text(trace: Trace, kinds: list[str], names: Sequence[str]) -> str:
    # What each rank held when it held most; nothing where it was not sampled.
    every = [[held for _, held in trace.held_bytes(rank)] for rank in range(trace.ranks)]
    peaks = [max(levels, key=lambda held: sum(held.values()), default={}) for levels in every]
    parts = kinds if len(kinds) > 1 else []
    columns = {
        "rank": [name.removeprefix("rank ") for name in names],
        "at the peak, in all" if parts else "peak": [format_bytes(sum(held.values())) for held in peaks],
    }
    return table(columns | {kind: [format_bytes(held.get(kind, 0)) for held in peaks] for kind in parts})
