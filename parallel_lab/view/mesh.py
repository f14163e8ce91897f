"""Who sits where in a device mesh, and who holds which shard: a grid with a cell a rank."""

from collections.abc import Mapping, Sequence

import numpy as np

from parallel_lab.view.drawing import Drawing
from parallel_lab.view.grid import grid
from parallel_lab.view.style import shorten
from parallel_lab.view.text import plural, table, titled

_ROW_IN, _COLUMN_IN = 0.62, 1.05


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
    words = {int(rank): f"rank {rank}" + (f"\n{shorten(holds[int(rank)], 18)}" if holds else "") for rank in ranks.flat}
    shards = {words[int(rank)]: holds[int(rank)] if holds else str(place[-1]) for place, rank in np.ndenumerate(ranks)}
    panel_in = _COLUMN_IN * sheets.shape[2] + 0.5
    across = max(1, min(len(sheets), int(9 / panel_in)))
    shape = " x ".join(f"{name} {size}" for name, size in zip(names, ranks.shape, strict=True))
    drawing = grid(
        {
            _coordinates(names[:-2], ranks.shape[:-2], number): [[words[int(rank)] for rank in row] for row in sheet]
            for number, sheet in enumerate(sheets)
        },
        [f"{names[-2]} {i}" if len(names) > 1 else "" for i in range(sheets.shape[1])],
        [f"{names[-1]} {i}" for i in range(sheets.shape[2])],
        by=shards.__getitem__,
        across=across,
        title=title,
        alt=titled(title, f"Mesh of {plural(ranks.size, 'rank')}, {shape}, as a grid."),
        width_in=min(9.0, max(3.5, across * panel_in)),
        row_in=_ROW_IN,
    )
    drawing.text = _text(names, ranks, holds)
    return drawing


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


def _coordinates(names: Sequence[str], sizes: Sequence[int], number: int) -> str:
    """The coordinates of panel `number` on the axes that are panels, as `pp 1`."""
    places = np.unravel_index(number, sizes) if len(sizes) else ()
    return ", ".join(f"{name} {place}" for name, place in zip(names, places, strict=True))


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
