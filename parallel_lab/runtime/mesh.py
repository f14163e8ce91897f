"""A mesh of ranks with named axes, and seeds that agree or differ along them."""

import hashlib
import math
from collections.abc import Collection
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.group import member

_made: WeakKeyDictionary[dist.ProcessGroup, dict[tuple, DeviceMesh]] = WeakKeyDictionary()


def make_mesh(**axes: int) -> DeviceMesh:
    """Arranges all ranks in a mesh, outermost axis first: `make_mesh(pp=2, dp=2, tp=2)`.

    Ranks that differ only in the last axis are neighbors, so put the axis that talks most last. Each axis has a group
    of its own, also where it spans all ranks, and traces know it by the axis' name. The same axes give the same mesh.

    Raises:
        ValueError: a size is no whole number from 1, or they do not multiply to the number of ranks.
    """
    world = dist.get_world_size()
    if not axes or not all(isinstance(size, int) and size > 0 for size in axes.values()):
        raise ValueError(f"make_mesh got {axes}: expected for each axis how many ranks it has, as in make_mesh(dp=2)")
    if math.prod(axes.values()) != world:
        sizes = " x ".join(f"{name}={size}" for name, size in axes.items())
        raise ValueError(f"{sizes} makes {math.prod(axes.values())} ranks, but there are {world}")
    made = _made.setdefault(member(None), {})
    key = tuple(axes.items())
    if key not in made:
        ranks = torch.arange(world).view(tuple(axes.values()))
        groups = [_own_group(ranks, place, name) for place, name in enumerate(axes)]
        one_or_all = groups[0] if len(groups) == 1 else groups  # of one axis, from_group takes no list
        made[key] = DeviceMesh.from_group(one_or_all, rank_device().type, ranks, mesh_dim_names=tuple(axes))
    return made[key]


def _own_group(ranks: torch.Tensor, axis: int, name: str) -> dist.ProcessGroup:
    """The group of this rank along an axis of the mesh `ranks`; all ranks make all groups of the axis, in one order."""
    rows = ranks.movedim(axis, -1).reshape(-1, ranks.size(axis)).tolist()
    groups = [dist.new_group(row, group_desc=f"mesh_{name}") for row in rows]
    return next(group for group, row in zip(groups, rows, strict=True) if dist.get_rank() in row)  # type: ignore[return-value]


def seed_for(mesh: DeviceMesh, axes: Collection[str], *, seed: int = 0) -> int:
    """A seed of the run `seed` that differs along the named `axes` of `mesh` and is the same along all others.

    Dropout under tensor parallelism must draw the same mask on all ranks of `tp`, whose activations are copies, and
    another for each share of the batch: `torch.Generator().manual_seed(seed_for(mesh, ["dp"]))`. Weights that are cut
    along `tp` start from `seed_for(mesh, ["tp"])`.

    Raises:
        ValueError: the mesh has no such axis.
    """
    names = mesh.mesh_dim_names or ()
    if isinstance(axes, str) or not set(axes) <= set(names):
        raise ValueError(f"axes={axes!r}: expected a list of some of the mesh's axes, {', '.join(names)}")
    place = [(name, mesh.get_local_rank(name)) for name in names if name in axes]
    digest = hashlib.sha256(repr((seed, place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits and NumPy's generators any size
