"""One flag, so that trouble on one rank costs none its state.

A sharded step that one rank refuses leaves the others with half a model. So ranks first exchange one flag.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist

FLAG_BYTES = 4  # one float32: what `agree` all-reduces


def agree(
    problem: Exception | None, group: dist.ProcessGroup, device: torch.device, undo: Callable[[], object] | None = None
) -> None:
    """Raises `problem` on the ranks that have one; the others then wait for these, see `wait_for_failed_rank`.

    Where any rank has one, every rank first calls `undo`.
    """
    flag = torch.tensor([float(problem is not None)], dtype=torch.float32, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX, group)
    if undo and flag.item():
        undo()
    if problem is not None:
        raise problem
    if flag.item():
        wait_for_failed_rank(group, "another rank refused, and its own message says why; nothing was changed here")


def wait_for_failed_rank(group: dist.ProcessGroup, why: str) -> None:
    """Waits in a barrier that the rank at fault never reaches, so that its error is the one that is reported.

    Never returns: if that rank caught its error and joins the barrier, this one raises as well.
    """
    dist.barrier(group)
    raise ValueError(f"rank {group.rank()} cannot go on: {why}")
