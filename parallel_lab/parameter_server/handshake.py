"""Arguments that are checked before the first message."""

from typing import Any

import torch.distributed as dist

from parallel_lab.agree.arguments import whole
from parallel_lab.runtime.group import member


def members(group: dist.ProcessGroup | None, servers: int, spares: int) -> dist.ProcessGroup:
    """The group, once the counts are known to fit it.

    TypeError or ValueError if not: there must be a server and a worker, and fewer spares than servers.
    """
    whole("servers", servers)
    whole("spares", spares, 0)
    group = member(group)
    if servers >= group.size():
        raise ValueError(f"servers={servers} of {group.size()} ranks leaves no worker: use fewer servers or more ranks")
    if spares >= servers:
        raise ValueError(f"spares={spares} of servers={servers} leaves none to begin with: use fewer spares")
    return group


def check_rule(rule: Any, workers: int, servers: int) -> None:
    """TypeError if `rule` is no rule (or a class of them), ValueError if it makes no sense with such numbers."""
    if isinstance(rule, type) or not hasattr(rule, "may_pull"):
        raise TypeError(f"consistency={rule!r}: expected a rule, such as Synchronous() or Stale(2)")
    rule.check(workers, servers)
