"""One flag, so that trouble on one rank costs none its state.

A sharded step that one rank refuses leaves the others with half a model. So ranks first exchange one flag. The rank
that has a problem raises it; the others wait in a barrier, so that the launch names it, and raise too if it
joins them there after having caught its own error.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist

FLAG_BYTES = 4  # one float32: what `ask` all-reduces


def ask(problem: Exception | None, group: dist.ProcessGroup, device: torch.device) -> Callable[[], None]:
    """Starts telling the other ranks whether this one has a problem; call what it returns to hear from them.

    That call raises `problem` on the ranks that have one. On the others it returns if all is well; otherwise it waits
    in a barrier and raises ValueError.
    """
    flag = torch.tensor([0.0 if problem is None else 1.0], dtype=torch.float32, device=device)
    work = dist.all_reduce(flag, dist.ReduceOp.MAX, group, async_op=True)

    def hear() -> None:
        assert work is not None
        work.wait()
        if problem is not None:
            raise problem
        if flag.item():
            wait_for_failed_rank(group, "another rank refused, and its own message says why; nothing was changed here")

    return hear


def agree(problem: Exception | None, group: dist.ProcessGroup, device: torch.device) -> None:
    """`ask`, and hear at once."""
    ask(problem, group, device)()


def wait_for_failed_rank(group: dist.ProcessGroup, why: str) -> None:
    """Waits in a barrier that the rank at fault never reaches, so that its error is the one that is reported.

    Never returns: if the barrier ends all the same, it raises ValueError.
    """
    dist.barrier(group)
    raise ValueError(f"rank {group.rank()} cannot go on: {why}")
