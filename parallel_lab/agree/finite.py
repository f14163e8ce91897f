"""Gradients that are NaN or infinite: found on the rank that computed them, before they reach weights that others use.

Once gradients are averaged, every rank has the NaN and none can tell where it came from.
"""

import torch
from torch import Tensor, nn


def is_finite(tensor: Tensor) -> bool:
    """Whether `tensor` holds neither NaN nor infinity. A sum, one pass, hides neither; it may overflow without them."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def gradient_problem(name: str, whose: str) -> ValueError:
    """The error for a gradient of parameter `name` that is not finite; `whose` is `rank 1`, say."""
    return ValueError(
        f"{whose}: the gradient of {name} is NaN or infinite; no weight and no moment was changed. Look at this rank's"
        " batch and loss, lower the learning rate, or clip the gradients."
    )


def require_finite(model: nn.Module, whose: str) -> None:
    """Raises `gradient_problem` for the first parameter of `model` whose `.grad` is NaN or infinite."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not is_finite(parameter.grad):
            raise gradient_problem(name, whose)
