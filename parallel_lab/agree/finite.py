"""Gradients that are NaN or infinite: found on the rank that computed them, before they reach weights that others use.

Once gradients are averaged, every rank has the NaN and none can tell where it came from.
"""

import torch
from torch import Tensor, nn


def is_finite(tensor: Tensor) -> bool:
    """Whether `tensor` holds neither NaN nor infinity. One pass: a sum cannot hide either of them.

    A sum can overflow where no element does, so an odd sum is looked at again.
    """
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def gradient_problem(name: str, whose: str) -> ValueError:
    """The error for a gradient of parameter `name` that is not finite; `whose` is `rank 1`, say."""
    text = f"{whose}: the gradient of {name} is NaN or infinite; no weight and no moment was changed"
    return ValueError(f"{text}. Look at this rank's batch and loss, lower the learning rate, or clip the gradients.")


def require_finite(model: nn.Module, whose: str) -> None:
    """Raises `gradient_problem` for the first parameter of `model` whose `.grad` is NaN or infinite."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not is_finite(parameter.grad):
            raise gradient_problem(name, whose)
