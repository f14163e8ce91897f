"""Handing gloo what it can move.

CUDA tensors go through host memory in all operations but all_reduce and broadcast. An all-to-all of a list of tensors
goes as one tensor: gloo refuses lists of unequal tensors.
"""

from collections.abc import Callable
from typing import Any

import torch

GLOO_TAKES_CUDA = ("all_reduce", "broadcast", "barrier")


def flatten(argument: Any) -> list[torch.Tensor]:
    """The tensors in a tensor, a list of tensors or a list of lists; nothing in anything else."""
    if isinstance(argument, torch.Tensor):
        return [argument]
    if isinstance(argument, (list, tuple)):
        return [tensor for inner in argument for tensor in flatten(inner)]
    return []


def needed(kind: str, backend: str, tensors: list[torch.Tensor]) -> bool:
    """Whether this operation must go through host memory."""
    return backend == "gloo" and kind not in GLOO_TAKES_CUDA and any(t.is_cuda for t in tensors)


def to_host(arguments: tuple) -> tuple[tuple, Callable[[], None]]:
    """Copies of `arguments` in host memory, and a function that copies what arrived there back.

    The first argument of every collective is what it writes, so that one is copied back.
    """
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []

    def host(argument: Any) -> Any:
        if isinstance(argument, torch.Tensor):
            copy = torch.empty(argument.shape, dtype=argument.dtype, pin_memory=argument.is_cuda)
            copies.append((argument, copy.copy_(argument)))
            return copy
        if isinstance(argument, (list, tuple)):
            return [host(inner) for inner in argument]
        return argument

    staged = tuple(host(argument) for argument in arguments)
    written = len(flatten(arguments[0])) if arguments else 0

    def back() -> None:
        for tensor, copy in copies[:written]:
            tensor.copy_(copy)

    return staged, back


def to_one_tensor(arguments: tuple) -> tuple[tuple, Callable[[], None]]:
    """The arguments of an all-to-all of lists as those of one tensor, and a function that copies what arrived back."""
    outputs, inputs, *rest = arguments
    given = torch.cat([tensor.reshape(-1) for tensor in inputs])
    cuts = [tensor.numel() for tensor in outputs]
    taken = given.new_empty(sum(cuts))

    def back() -> None:
        for tensor, part in zip(outputs, taken.split(cuts), strict=True):
            tensor.copy_(part.view(tensor.shape))

    return (taken, given, cuts, [tensor.numel() for tensor in inputs], *rest), back
