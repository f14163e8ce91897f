"""Who sits where in a device mesh: a grid with a cell a rank."""

from collections.abc import Mapping

import numpy as np

from parallel_lab.view.drawing import Drawing
from parallel_lab.view.grid import grid

_COLUMN_IN = 1.05


def draw_mesh(mesh, *, title: str | None = None) -> Drawing:
    """Draws the coordinates of each rank; the last axis runs across, the one before it down, others are panels.

    `mesh` is {axis name: size}, slowest axis first, ranks numbered row by row as PyTorch does; or a `DeviceMesh`. Cells
    look the same where the coordinate on the last axis is the same: the same shard. The text lists the groups of ranks
    along each axis.

    Raises:
        ValueError: an axis is missing or empty.
    """
    names, ranks = _grid(mesh)
    sheets = ranks.reshape(-1, *ranks.shape[-2:]) if ranks.ndim > 1 else ranks.reshape(1, 1, -1)
    places = {f"rank {rank}": place for place, rank in np.ndenumerate(ranks)}
    panel_in = _COLUMN_IN * sheets.shape[2] + 0.5
    across = max(1, min(len(sheets), int(9 / panel_in)))
    drawing = grid(
        {
            ", ".join(f"{name} {i}" for name, i in zip(names[:-2], outer, strict=True)): [
                [f"rank {rank}" for rank in row] for row in sheet
            ]
            for outer, sheet in zip(np.ndindex(ranks.shape[:-2]), sheets, strict=True)
        },
        [f"{names[-2]} {i}" if len(names) > 1 else "" for i in range(sheets.shape[1])],
        [f"{names[-1]} {i}" for i in range(sheets.shape[2])],
        by=lambda word: str(places[word][-1]),
        across=across,
        title=title,
        width_in=min(9.0, max(3.5, across * panel_in)),
    )
    groups = {name: np.moveaxis(ranks, axis, -1).reshape(-1, ranks.shape[axis]) for axis, name in enumerate(names)}
    drawing.text = "\n".join(f"{name}: groups {' '.join(map(str, rows.tolist()))}" for name, rows in groups.items())
    return drawing


def _grid(mesh) -> tuple[list[str], np.ndarray]:
    """Axis names, and the ranks as an array with these axes."""
    if isinstance(mesh, Mapping):
        sizes = list(mesh.values())
        if not sizes or any(size < 1 for size in sizes):
            raise ValueError(f"a mesh needs one axis or more, each of size 1 or more: {dict(mesh)}")
        return list(mesh), np.arange(np.prod(sizes)).reshape(sizes)
    ranks = np.asarray(mesh.mesh.tolist())
    return list(mesh.mesh_dim_names or [f"axis {i}" for i in range(ranks.ndim)]), ranks
