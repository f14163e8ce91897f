"""What the pictures beside the timeline share: a figure of small panels, and a plain set of axes."""

from collections.abc import Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parallel_lab.view.style import FAINT, INK, shorten


def panels(
    count: int, columns: int, width_in: float, panel_in: float, title: str | None = None, **shared
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, `columns` side by side, each `panel_in` inches high; `shared` as in `subplots`."""
    columns = min(columns, count)
    rows = ceil(count / columns)
    figure = Figure(
        figsize=(width_in, rows * panel_in + (0.35 if title else 0)), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
    axes = list(grid.flat)
    for unused in axes[count:]:
        figure.delaxes(unused)
    if title:
        figure.suptitle(shorten(title, int(width_in / 0.085)), fontsize=10, x=0.01, ha="left", color=INK)
    return figure, axes[:count]


def tidy(ax: Axes, xlabel: str = "", ylabel: str = "") -> None:
    """Labels, a faint grid behind the data, and no frame at top and right."""
    ax.set_xlabel(xlabel, fontsize=8.5)
    ax.set_ylabel(ylabel, fontsize=8.5)
    ax.tick_params(labelsize=7.5, length=3, color=FAINT)
    ax.grid(True, linewidth=0.5)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def legend_below(figure: Figure, handles: Sequence, names: Sequence[str]) -> None:
    """A legend under all axes, in as many columns as fit the width."""
    names = [shorten(name, 60) for name in names]
    for columns in range(min(len(names), 8), 0, -1):
        legend = figure.legend(
            handles, names, loc="outside lower center", ncols=columns, fontsize=7.5, handlelength=2.6
        )
        if columns == 1 or legend.get_window_extent().width / figure.dpi <= figure.get_figwidth() - 0.1:
            return
        legend.remove()
