"""Clipping by the global norm (Pascanu et al. 2013, section 3.2), for gradients that are replicated or sharded.

Under DDP every rank holds the same averaged gradients, so each computes the same norm with no communication. Where
gradients are sharded, the squares are added up over the ranks, and all ranks scale by the same factor. Taking each
shard's own norm is the usual mistake: ranks then scale differently.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only

EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@runtime_checkable
class Sharded(Protocol):
    """What has its gradients sharded over a group: `Zero2`, `Zero3`."""

    group: dist.ProcessGroup

    def gradient_shards(self) -> list[Tensor]:
        """This rank's parts of the averaged gradients, in any shapes; padding is zero. Clipping scales them."""
        ...


@keyword_only()
def clip_grad_norm_(
    model_or_params: nn.Module | Sharded | Iterable[Tensor],
    max_norm: float,
    *,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Scales all gradients by max_norm / norm where their global 2-norm is above `max_norm`; returns the norm before.

    Takes a DDP, a plain model, or parameters, whose gradients are the same on every rank; or a `Zero2` or `Zero3`
    itself, not its `parameters()`, of which each rank scales its shards. `group` is that over which gradients are
    sharded, by default the object's own.

    Raises:
        ValueError: `max_norm` is not above 0, or the norm is NaN or infinite. Gradients are then as they were.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm!r}: expected a number above 0")
    if isinstance(model_or_params, Sharded):
        return _clip_shards(model_or_params.gradient_shards(), max_norm, group or model_or_params.group)
    params = model_or_params.parameters() if isinstance(model_or_params, nn.Module) else model_or_params
    params = [params] if isinstance(params, Tensor) else params
    return _clip_shards([p.grad for p in params if p.grad is not None], max_norm, None)


def _clip_shards(shards: list[Tensor], max_norm: float, group: dist.ProcessGroup | None) -> Tensor:
    """Without a group these are the whole gradients."""
    shards = [torch.view_as_real(s) if s.is_complex() else s for s in shards]  # |number|^2 is the sum of both squares
    wide = torch.float64 if any(s.dtype == torch.float64 for s in shards) else torch.float32
    squares = torch.zeros((), dtype=wide, device=shards[0].device if shards else "cpu")
    for shard in shards:
        squares += shard.to(wide).square().sum()
    if group:
        dist.all_reduce(squares, group=group)
    norm = squares.sqrt()
    if not norm.isfinite():
        raise ValueError(f"the global norm of the gradients is {norm.item()}: there is no factor that clips it")
    factor = (max_norm / (norm + EPSILON)).clamp(max=1.0)
    for shard in shards:
        shard.mul_(factor.to(shard.dtype))
    return norm
