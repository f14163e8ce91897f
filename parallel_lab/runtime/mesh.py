"""A mesh of ranks with named axes."""

import math

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from parallel_lab.runtime.device import rank_device


def make_mesh(**axes: int) -> DeviceMesh:
    """Arranges all ranks in a mesh, outermost axis first: `make_mesh(pp=2, dp=2, tp=2)`.

    Ranks that differ only in the last axis are neighbours, so put the axis that talks most last.

    Raises:
        ValueError: the sizes do not multiply to the number of ranks.
    """
    world = dist.get_world_size()
    if math.prod(axes.values()) != world:
        sizes = " x ".join(f"{name}={size}" for name, size in axes.items())
        raise ValueError(f"{sizes} makes {math.prod(axes.values())} ranks, but there are {world}")
    return init_device_mesh(rank_device().type, tuple(axes.values()), mesh_dim_names=tuple(axes))
