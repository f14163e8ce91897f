"""A gradient whose norm is not finite changes no weight, and nobody waits for a GPU to find that out.

Whoever asks a GPU for the norm waits until it has computed all that was queued; then the GPU waits until the update is
queued. torch's fused optimizers take a flag in its memory, `found_inf`, with which their kernel leaves weights and
state as they are; `torch.amp.GradScaler` uses it. Here the flag is set without a look at it, the norm is copied to the
host behind the work that goes on, and the next step looks at the copy: it is there long since.
"""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.data_parallel import Zero1
from parallel_lab.hybrid.parallel import Parallel


class Copied(NamedTuple):
    """A norm on its way to the host, and what tells that it has arrived."""

    norm: Tensor
    there: torch.cuda.Event | None


_copied: WeakKeyDictionary[Any, Copied] = WeakKeyDictionary()  # by optimizer: the norm of the step before


def require_finite(parallel: Parallel, norm: Tensor) -> None:
    """Sees to it that the update that follows changes nothing unless `norm` is finite; all ranks call it.

    Raises:
        ValueError: it is not. Where the optimizer is fused, that is said one step later, and no weight was changed in
            either.
    """
    optimizer = parallel.optimizer
    if not fused(optimizer):
        return _refuse(parallel, norm)
    if before := _copied.pop(optimizer, None):
        if before.there:
            before.there.synchronize()
        _refuse(parallel, before.norm)
    optimizer.found_inf = (~norm.isfinite()).float()
    on_gpu = norm.is_cuda
    there = torch.empty((), dtype=norm.dtype, pin_memory=on_gpu).copy_(norm, non_blocking=on_gpu)
    event = torch.cuda.Event() if on_gpu else None
    if event:
        event.record()
    _copied[optimizer] = Copied(there, event)


def fused(optimizer: Any) -> bool:
    """Whether one of torch's own fused kernels steps all parameters; behind `Zero1` it is another object that steps."""
    own = isinstance(optimizer, torch.optim.Optimizer) and not isinstance(optimizer, Zero1)
    return own and all(group.get("fused") for group in optimizer.param_groups)


def _refuse(parallel: Parallel, norm: Tensor) -> None:
    if not norm.isfinite():
        parallel.optimizer.zero_grad()
        raise ValueError(
            f"rank {dist.get_rank()}: the global norm of the gradients is {norm.item()}; no weight was changed. Lower"
            " the learning rate, or look at the batch"
        )
