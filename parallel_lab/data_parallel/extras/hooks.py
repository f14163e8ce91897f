"""Gradient hooks: what is done with a bucket once this rank has filled it.

A hook is a function of (group, flat) that starts communication and returns a handle. When the handle's `wait()` is
over, the mean over all ranks stands in `flat`, or is the tensor that `wait()` returned. Compression plugs in here. A
hook with `takes_bucket = True` is called with (group, bucket): what it keeps for the next step belongs to its `names`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor


class Handle(Protocol):
    """Something under way: a `Work` of torch.distributed, a `torch.futures.Future`, or your own."""

    def wait(self) -> Any:
        """Blocks until it is over. May return the result, or a list that holds it alone."""


Hook = Callable[[dist.ProcessGroup, Any], Handle]


def mean_hook(group: dist.ProcessGroup, flat: Tensor) -> Handle:
    """Starts the all-reduce that makes `flat` the mean over the ranks. Dividing first keeps float16 in range."""
    flat.mul_(1 / group.size())
    return sum_hook(group, flat)


def sum_hook(group: dist.ProcessGroup, flat: Tensor) -> Handle:
    """Starts the all-reduce that makes `flat` the sum over the ranks.

    What DDP does by default, having divided while it filled the bucket: the same mean, one pass over memory less.
    """
    work: Any = dist.all_reduce(flat, group=group, async_op=True)
    return work


def start(hook: Hook, group: dist.ProcessGroup, bucket: Any) -> Handle:
    """Calls the hook on a filled bucket, and refuses what it returns if nobody can wait for that."""
    handle = hook(group, bucket if getattr(hook, "takes_bucket", False) else bucket.flat)
    if not hasattr(handle, "wait"):
        raise TypeError(
            f"rank {group.rank()}: the gradient hook {getattr(hook, '__name__', hook)} returned {handle!r}: expected a"
            " handle with wait(), such as dist.all_reduce(flat, group=group, async_op=True), or a torch.futures.Future"
        )
    return handle


def finish(handle: Handle, flat: Tensor) -> None:
    """Waits for the hook and puts what it returned, if that is another tensor of that size, into `flat`."""
    value = handle.wait()
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Tensor) and value.data_ptr() != flat.data_ptr():
        if value.numel() != flat.numel():
            raise ValueError(f"the gradient hook gave {value.numel()} elements for a bucket of {flat.numel()}")
        flat.copy_(value.view(-1))
