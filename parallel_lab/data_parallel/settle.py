"""What DDP's ranks settle once the means are there, without a message in the usual case.

The mean is the same on every rank, so whatever is read off it is known to all: what is NaN on one rank is NaN in
the mean, and a parameter that no rank used has a mean of zeros. Only then do ranks ask each other: whose gradient it
was, and whether the zeros are a gradient or none.
"""

from collections.abc import Sequence
from math import isfinite

import torch
import torch.distributed as dist

from parallel_lab.agree.problem import wait_for_the_culprit
from parallel_lab.data_parallel.buckets import Bucket


def require_finite(buckets: Sequence[Bucket], group: dist.ProcessGroup) -> None:
    """Raises ValueError if a mean gradient is NaN or infinite: on the ranks that brought it in, naming the parameters.

    Looks at the first element of each bucket, which `Bucket.poison` made NaN on the rank at fault. The others wait for
    that rank in a barrier. Nothing has been stepped: the weights are as they were. Where every rank's own gradient
    was finite (a hook made it so), all ranks raise.
    """
    bad = [bucket for bucket in buckets if not isfinite(bucket.flat[0].item())]
    if not bad:
        return
    mine = [name for bucket in bad for name in _culprits(bucket)]
    flags = torch.zeros(group.size(), dtype=torch.int64, device=bad[0].flat.device)
    flags[group.rank()] = len(mine)
    dist.all_reduce(flags, group=group)
    ranks = flags.nonzero().flatten().tolist()
    if ranks and group.rank() not in ranks:
        wait_for_the_culprit(group, f"gradients of rank {ranks[0]} are NaN or infinite")
    what = f"gradient of {', '.join(map(repr, mine))}" if mine else "mean gradient that the hook gave"
    raise ValueError(
        f"rank {group.rank()}: the {what} has NaN or infinity. The weights of all ranks are as they were before this"
        " step. Look at this rank's batch, the learning rate, or the loss scale; DDP(check_finite=False) lets it pass."
    )


def _culprits(bucket: Bucket) -> list[str]:
    """The parameters of which this rank itself brought NaN or infinity."""
    pairs = zip(bucket.names, bucket.sums, strict=True)
    return [name for name, sums in pairs if not all(isfinite(own.item()) for own in sums)]


def settle_unused(buckets: Sequence[Bucket], group: dist.ProcessGroup) -> None:
    """Gives each parameter that some rank used its `.grad`; one that no rank used keeps None.

    So optimizers skip it, as they do in one process; with zeros, AdamW would decay it. Sends one small all-reduce, but
    only if the mean of some parameter is all zeros.
    """
    zeros = [(bucket, place) for bucket in buckets for place in _zeros(bucket)]
    unused = set()
    if zeros:
        used = torch.tensor([bucket.used[place] for bucket, place in zeros], dtype=torch.uint8)
        used = used.to(buckets[0].flat.device)
        dist.all_reduce(used, dist.ReduceOp.MAX, group=group)
        unused = {(b.index, place) for (b, place), use in zip(zeros, used.tolist(), strict=True) if not use}
    for bucket in buckets:
        for place, (parameter, view) in enumerate(zip(bucket.parameters, bucket.views, strict=True)):
            if not bucket.used[place] and (bucket.index, place) not in unused:
                parameter.grad = view


def _zeros(bucket: Bucket) -> list[int]:
    """The places of the parameters whose mean is all zeros. One look at the first elements rules most of them out."""
    first = bucket.flat.index_select(0, bucket.starts).tolist()
    return [place for place, value in enumerate(first) if value == 0 and not bucket.views[place].any()]
