"""What is checked before the first message: the arguments, and that all ranks speak of the same model."""

from collections import Counter
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab.collectives.execute import member
from parallel_lab.parameter_server.consistency import whole
from parallel_lab.parameter_server.sharding import Layout


def members(group: dist.ProcessGroup | None, servers: int, spares: int) -> dist.ProcessGroup:
    """The group, once the counts are known to fit it.

    TypeError or ValueError if not: there must be a server and a worker, and fewer spares than servers.
    """
    whole(servers, "servers", 1)
    whole(spares, "spares", 0)
    group = member(group)
    if servers >= group.size():
        raise ValueError(f"servers={servers} of {group.size()} ranks leaves no worker: use fewer servers or more ranks")
    if spares >= servers:
        raise ValueError(f"spares={spares} of servers={servers} leaves none to begin with: use fewer spares")
    return group


def check_rule(rule: Any, workers: int, servers: int) -> None:
    """TypeError if `rule` is no rule (or a class of them), ValueError if it makes no sense with such numbers."""
    if isinstance(rule, type) or not hasattr(rule, "may_pull"):
        raise TypeError(f"consistency={rule!r}: expected a rule, such as Synchronous() or StaleSynchronous(2)")
    rule.check(workers, servers)


def check_rate(settings: Mapping[str, Any]) -> None:
    """TypeError if the learning rate is no number, which torch would find out only on the servers."""
    rate = settings.get("lr", 0.1)
    if isinstance(rate, bool) or not isinstance(rate, Real | torch.Tensor):
        raise TypeError(f"lr={rate!r}: expected a number, got {type(rate).__name__}")


def agree(group: dist.ProcessGroup, layout: Layout) -> None:
    """Returns on all ranks, or on none: ValueError on each rank whose model differs from that of most.

    Ranks that agree wait in a barrier, so that the launch names the one that differs.
    """
    told: list[Any] = [None] * group.size()
    dist.all_gather_object(told, layout, group=group)
    usual, _ = Counter(told).most_common(1)[0]  # of equally common ones, that of the lowest rank
    if wrong := usual.difference(layout):
        raise ValueError(f"this rank's model differs from the others': it has {wrong}. Build the same on every rank.")
    dist.barrier(group)
