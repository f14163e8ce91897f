"""The data axis: what its ranks shard, with ZeRO's stage 0, 1 or 3, of what the other axes have left on a rank."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.data_parallel import Zero1, Zero3
from parallel_lab.hybrid.layout import Layout, group_of
from parallel_lab.hybrid.parallel import Parallel, Several
from parallel_lab.hybrid.stages import Part
from parallel_lab.runtime import rank_device


def shard_stages(
    stages: Mapping[int, Part], layout: Layout, groups: Mapping[str, dist.ProcessGroup], *, zero: int, shards: int
) -> Mapping[int, nn.Module]:
    """With zero=3 the stages of which each of `shards` neighboring data ranks keeps its rows; else as they are."""
    if zero != 3:
        return stages
    group = groups["dp_cp"] if shards == layout.data else _copies_and_shards(layout, shards)
    # A norm that is not finite stops all ranks alike, so Zero3 need not look.
    options: Any = {"check_finite": False, "group": group}
    return {number: Zero3(part, units=part.blocks.values(), **options) for number, part in stages.items()}


def _copies_and_shards(layout: Layout, shards: int) -> DeviceMesh:
    """The data ranks of this rank's stage as a mesh of two axes: those with copies, and those that share one."""
    tables = [torch.tensor(row).view(-1, shards) for row in layout.rows("dp_cp")]
    copies = group_of([row for table in tables for row in table.T.tolist()], "copies")
    share = group_of([row for table in tables for row in table.tolist()], "shards")
    mine = next(table for table in tables if dist.get_rank() in table)
    return DeviceMesh.from_group([copies, share], rank_device().type, mine, mesh_dim_names=("copies", "shards"))


def shard_optimizer(
    parallel: Parallel, optimizer: Callable[..., torch.optim.Optimizer], settings: Mapping[str, Any]
) -> Any:
    """What steps this rank's parameters: with zero=1 each data rank a part of them. Experts have a group of their own.

    One rank alone shards nothing: it has a plain optimizer, which copies nothing.
    """
    optimizers = []
    for axis, named in parallel.by_replicas().items():
        group = parallel.groups[axis]
        if parallel.zero == 1 and group.size() > 1:
            optimizers.append(Zero1(named.items(), optimizer, check_finite=False, group=group, **settings))
        else:
            optimizers.append(optimizer(list(named.values()), **settings))
    return optimizers[0] if len(optimizers) == 1 else Several(optimizers)
