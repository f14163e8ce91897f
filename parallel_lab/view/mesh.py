"""Who sits where in a device mesh, and who holds which shard: a grid with a cell a rank."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from parallel_lab.view.drawing import Drawing, panels
from parallel_lab.view.style import INK, Look, numbered, settings, shorten
from parallel_lab.view.text import plural, table

_CELL_IN = 0.62
_HALO = [withStroke(linewidth=2.2, foreground="white", alpha=0.9)]


def draw_mesh(mesh, *, holds: Sequence[str] | None = None, title: str | None = None) -> Drawing:
    """Draws the coordinates of each rank; the last axis runs across, the one before it down, others are panels.

    Args:
        mesh: {axis name: size}, slowest axis first, ranks numbered row by row as PyTorch does; or a `DeviceMesh`.
        holds: what each rank holds (`holds[rank]`), written into its cell; cells that hold the same look the same.
            By default cells look the same where the coordinate on the last axis is the same: the same shard.
        title: above the picture.

    Raises:
        ValueError: an axis is missing or empty, or `holds` has not one entry a rank.
    """
    names, ranks = _grid(mesh)
    if holds is not None and len(holds) != ranks.size:
        raise ValueError(f"holds has {len(holds)} entries, the mesh has {plural(ranks.size, 'rank')}")
    sheets = ranks.reshape(-1, *ranks.shape[-2:]) if ranks.ndim > 1 else ranks.reshape(1, 1, -1)
    shown = {int(rank): _held(place, rank, holds) for place, rank in np.ndenumerate(ranks)}
    looks = dict(zip(dict.fromkeys(shown.values()), numbered(len(set(shown.values()))), strict=True))
    columns = max(1, min(len(sheets), int(9 / (_CELL_IN * 1.7 * sheets.shape[2] + 0.5))))
    with settings():
        width_in = min(9.0, max(3.5, columns * (_CELL_IN * 1.7 * sheets.shape[2] + 0.5)))
        figure, axes = panels(len(sheets), columns, width_in, _CELL_IN * sheets.shape[1] + 0.5, title)
        for number, (ax, sheet) in enumerate(zip(axes, sheets, strict=True)):
            _sheet(ax, sheet, names, shown if holds is not None else None, {r: looks[s] for r, s in shown.items()})
            ax.set_title(_coordinates(names[:-2], ranks.shape[:-2], number), fontsize=8.5, color=INK)
    shape = " x ".join(f"{name} {size}" for name, size in zip(names, ranks.shape, strict=True))
    alt = f"{f'{title}. ' if title else ''}Mesh of {plural(ranks.size, 'rank')}, {shape}, as a grid."
    return Drawing(figure, alt=alt, text=_text(names, ranks, holds))


def _grid(mesh) -> tuple[list[str], np.ndarray]:
    """Axis names, and the ranks as an array with these axes."""
    if isinstance(mesh, Mapping):
        sizes = list(mesh.values())
        if not sizes or any(size < 1 for size in sizes):
            raise ValueError(f"a mesh needs one axis or more, each of size 1 or more: {dict(mesh)}")
        return list(mesh), np.arange(np.prod(sizes)).reshape(sizes)
    ranks = np.asarray(mesh.mesh.tolist())
    names = mesh.mesh_dim_names or [f"axis {i}" for i in range(ranks.ndim)]
    return list(names), ranks


def _held(place: tuple[int, ...], rank: int, holds: Sequence[str] | None) -> str:
    return str(place[-1]) if holds is None else holds[rank]


def _coordinates(names: Sequence[str], sizes: Sequence[int], number: int) -> str:
    """The coordinates of panel `number` on the axes that are panels, as `pp 1`."""
    places = np.unravel_index(number, sizes) if len(sizes) else ()
    return ", ".join(f"{name} {place}" for name, place in zip(names, places, strict=True))


def _sheet(
    ax: Axes, sheet: np.ndarray, names: Sequence[str], holds: Mapping[int, str] | None, looks: Mapping[int, Look]
) -> None:
    # sheet: (down, across)
    down, across = sheet.shape
    ax.set(xlim=(-0.5, across - 0.5), ylim=(down - 0.5, -0.5))
    for (row, column), rank in np.ndenumerate(sheet):
        look = looks[int(rank)]
        ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, linewidth=0.5, **look.area(dense=1)))
        text = f"rank {rank}" + (f"\n{shorten(holds[int(rank)], 18)}" if holds else "")
        ax.text(column, row, text, ha="center", va="center", fontsize=7.5, path_effects=_HALO)
    ax.set_xticks(range(across), [f"{names[-1]} {i}" for i in range(across)])
    ax.set_yticks(range(down), [f"{names[-2]} {i}" if len(names) > 1 else "" for i in range(down)])
    ax.tick_params(length=0, labelsize=7.5)
    ax.spines[:].set_visible(False)


def _text(names: Sequence[str], ranks: np.ndarray, holds: Sequence[str] | None) -> str:
    """The groups of ranks along each axis, then what each rank holds."""
    groups = {
        name: [str(group.tolist()) for group in np.moveaxis(ranks, axis, -1).reshape(-1, ranks.shape[axis])]
        for axis, name in enumerate(names)
    }
    lines = [f"{name}: groups {' '.join(found)}" for name, found in groups.items()]
    if holds is not None:
        lines += table({"rank": [str(rank) for rank in range(len(holds))], "holds": list(holds)})
    return "\n".join(lines)
