"""Handing a backend what it can move.

gloo takes CUDA tensors in all_reduce and broadcast alone; in all else, and in every message, they go through host
memory. An all-to-all of a list of tensors goes as one tensor: gloo refuses lists of unequal tensors.
"""

from collections.abc import Callable
from typing import Any

import torch

GLOO_TAKES_CUDA = ("allreduce", "broadcast", "barrier")  # methods of ProcessGroup
MESSAGES = ("send", "recv")
WRITES_ONLY = ("recv", "all_gather", "gather", "scatter", "reduce_scatter", "all_to_all")  # do not read what they fill


def flatten(argument: Any) -> list[torch.Tensor]:
    """The tensors in a tensor, a list of tensors or a list of lists; nothing in anything else."""
    if isinstance(argument, torch.Tensor):
        return [argument]
    if isinstance(argument, (list, tuple)):
        return [tensor for inner in argument for tensor in flatten(inner)]
    return []


def needed(method: str, backend: str, tensors: list[torch.Tensor]) -> bool:
    """Whether this operation must go through host memory."""
    takes = method in GLOO_TAKES_CUDA if backend == "gloo" else method not in MESSAGES
    return not takes and any(tensor.is_cuda for tensor in tensors)


def to_host(kind: str, arguments: tuple) -> tuple[tuple, Callable[[], None]]:
    """Copies of `arguments` in host memory, and a function that copies what arrived there back.

    The first argument of every collective is what it writes, so that one is copied back.
    """
    arrived: list[tuple[torch.Tensor, torch.Tensor]] = []

    def host(argument: Any, read: bool, written: bool) -> Any:
        if isinstance(argument, torch.Tensor):
            copy = torch.empty(argument.shape, dtype=argument.dtype, pin_memory=argument.is_cuda)
            if read:
                copy.copy_(argument)
            if written:
                arrived.append((argument, copy))
            return copy
        if isinstance(argument, (list, tuple)):
            return [host(inner, read, written) for inner in argument]
        return argument

    output, *inputs = arguments
    staged = (host(output, kind not in WRITES_ONLY, kind != "send"), *(host(each, True, False) for each in inputs))

    def back() -> None:
        for tensor, copy in arrived:
            tensor.copy_(copy)
        arrived.clear()

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
