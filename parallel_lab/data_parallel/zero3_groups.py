"""Over whom Zero3 shards: one group, or a mesh of two axes, of which the first replicates and the second shards."""

from typing import Any, NamedTuple

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.runtime.group import member


class Groups(NamedTuple):
    """The process groups of one Zero3."""

    shard: dist.ProcessGroup  # each of its ranks has an n-th of every parameter
    replicate: dist.ProcessGroup | None  # its ranks have equal shards; None without a second axis
    small: dist.ProcessGroup  # to which a unit is resharded after the forward pass; `shard` by default
    everyone: dist.ProcessGroup
    mesh: DeviceMesh | None  # what was given, where it was a mesh
    reshards: bool  # whether a unit is resharded after its forward pass

    @classmethod
    def of(cls, group: dist.ProcessGroup | DeviceMesh | None, reshard_after_forward: bool | int = True) -> "Groups":
        """The groups that Zero3's arguments mean; refuses axes and ranks that do not fit. All ranks have to call it."""
        reshards = reshard_after_forward is True or reshard_after_forward > 1
        if not isinstance(group, DeviceMesh):
            shard = member(group)
            return cls(shard, None, _part_of(shard, reshard_after_forward), shard, None, reshards)
        if group.ndim > 2:
            axes = group.mesh_dim_names or group.ndim
            raise ValueError(f"the mesh has the axes {axes}: expected one, or two (replicate, shard); mesh['dp', …]")
        shard, replicate = group.get_group(group.ndim - 1), group.get_group(0) if group.ndim == 2 else None
        everyone = _mine_of([group.mesh.flatten().tolist()]) if replicate else shard
        return cls(shard, replicate, _part_of(shard, reshard_after_forward), everyone, group, reshards)


def _part_of(shard: dist.ProcessGroup, size: bool | int) -> dist.ProcessGroup:
    """The `size` neighbors of this rank in `shard`."""
    if size in (True, False, shard.size()):  # True is 1
        return shard
    if size < 1 or shard.size() % size:
        text = f"reshard_after_forward={size}: expected True, False, or a number that divides the {shard.size()} ranks"
        raise ValueError(text)
    ranks = dist.get_process_group_ranks(shard)
    return _mine_of([ranks[first : first + size] for first in range(0, len(ranks), size)])


def _mine_of(rows: list[list[int]]) -> dist.ProcessGroup:
    """The group of that row of ranks in which this rank is. All ranks of the rows call it."""
    mine = next(row for row in rows if dist.get_rank() in row)
    if len(mine) == dist.get_world_size():
        return member(None)
    if sum(map(len, rows)) < dist.get_world_size():  # other ranks do not know of it
        group: Any = dist.new_group(mine, use_local_synchronization=True)
        return group
    groups: dict[int, Any] = {row[0]: dist.new_group(row) for row in rows}
    return groups[mine[0]]
