"""A weight that stands in two stages, as the embedding does that is also the output layer.

Each stage has a copy, and each copy gets the gradient of its own use. The weight's gradient is the sum, on every
copy: the copies then take equal steps, if they start equal and their optimizers are alike. Sent per step: an all-reduce
of the weight over the ranks that have a copy, beside the messages of the pipeline.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.runtime.group import member
from parallel_lab.trace import tag


@dataclass
class Tied:
    """A tied weight: this rank's `copies`, and the group of the ranks that have some, if these are several."""

    copies: list[nn.Parameter]
    group: dist.ProcessGroup | None


def tie(*copies: nn.Parameter, group: dist.ProcessGroup | None = None) -> Tied:
    """Ties the copies of a weight on all ranks of the pipeline; they start equal, from those of the first rank.

    Every rank of `group` calls it, with as many copies as it has, also none. Two stages of one rank may as well share
    one parameter: autograd adds up its two uses, and it counts as one copy.

    Raises:
        ValueError: fewer than two copies in all, or copies of different shapes.
    """
    group, mine = member(group), list(dict.fromkeys(copies))
    shapes: list = [None] * group.size()
    with tag(phase="setup"):
        dist.all_gather_object(shapes, [tuple(copy.shape) for copy in mine], group=group)
        found = {shape for each in shapes for shape in each}
        if len(found) != 1:
            raise ValueError(
                f"rank {group.rank()}: a tied weight has the same shape in all stages, got {sorted(found)}"
            )
        holders = [rank for rank, each in enumerate(shapes) if each]
        ranks = [dist.get_global_rank(group, rank) for rank in holders] if mine else [dist.get_rank()]
        options = {"use_local_synchronization": True, "group_desc": "tied"}
        # Such a group's name counts the groups of its process, so ranks without a copy make one as well.
        own = dist.new_group(ranks, **options) if len(holders) > 1 else None
        if not mine:
            return Tied([], None)
        tied = Tied(mine, own if isinstance(own, dist.ProcessGroup) else None)
        with torch.no_grad():
            if tied.group:
                dist.broadcast(mine[0].data, group=tied.group, group_src=0)
            for copy in mine[1:]:
                copy.copy_(mine[0])
    return tied


@torch.no_grad()
def sum_tied(tied: Tied) -> None:
    """Leaves the sum of the gradients of all copies in each copy's `.grad`; call it after `step`, before the optimizer.

    It is not to be called twice for the same gradients: it would add them up again.
    """
    if not tied.copies:
        return
    total = sum((c.grad for c in tied.copies if c.grad is not None), torch.zeros_like(tied.copies[0]))
    if tied.group:
        with tag(phase="tied"):
            dist.all_reduce(total, group=tied.group)
    for copy in tied.copies:
        copy.grad = total.clone()
