"""What is looked at before training: whole numbers, learning rates, equal models; and at each step, the gradients.

An error is raised on the rank that caused it. The others then wait for that rank in a collective, so that `launch`
names the culprit and ends them.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value`, if it is a whole number of at least `least`.

    Raises:
        TypeError: it is no int. ValueError: it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}: expected a whole number from {least}")
    if value < least:
        raise ValueError(f"{name}={value}: expected at least {least}")
    return value


def number(name: str, value: Any) -> float:
    """`value`, if it is a finite number of at least 0.

    Raises:
        TypeError: it is no number. ValueError: it is negative, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}: expected a number, as in {name}=0.1")
    found = float(value)
    if not 0 <= found < float("inf"):
        raise ValueError(f"{name}={value}: expected a finite number of at least 0")
    return found


def optimizer_of(
    model: nn.Module, optimizer_class: Callable[..., torch.optim.Optimizer], options: dict
) -> torch.optim.Optimizer:
    """`optimizer_class(parameters, **options)`; TypeError or ValueError if `lr` is no learning rate."""
    if not isinstance(options.get("lr", 0.0), Tensor):
        number("lr", options.get("lr", 0.0))
    return optimizer_class([p for p in model.parameters() if p.requires_grad], **options)


def finite(model: nn.Module, step: int, rank: int) -> None:
    """Raises ValueError if a gradient of this rank is NaN or infinite: it must not reach weights that others use."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            raise ValueError(
                f"rank {rank}, step {step}: the gradient of {name} is not finite. It was kept from the other ranks' "
                "weights. Look at this rank's batch, or lower the learning rate."
            )


def same_model(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Compares this rank's parameters and buffers with rank 0's by name, shape, dtype and `requires_grad`.

    Raises:
        ValueError: on each rank that differs, with the first difference; the others wait for it.
    """
    mine = [*((name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in model.named_parameters())]
    mine += [(name, tuple(b.shape), str(b.dtype), False) for name, b in model.named_buffers()]
    box = [mine]
    dist.broadcast_object_list(box, group=group, group_src=0, device=next(model.parameters()).device)
    theirs = [tuple(entry) for entry in box[0]]
    if mine != theirs:
        here, there = next((a, b) for a, b in zip([*mine, None], [*theirs, None], strict=False) if a != b)
        raise ValueError(
            f"rank {dist.get_rank(group)} has another model than rank 0: {_words(here)} here, {_words(there)} there. "
            "Build the same model on all ranks."
        )
    dist.barrier(group)


def _words(entry: tuple | None) -> str:
    if entry is None:
        return "nothing more"
    name, shape, dtype, trained = entry
    return f"{name} {shape} {dtype.removeprefix('torch.')}{'' if trained else ' (not trained)'}"
