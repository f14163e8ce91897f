"""The arguments of an operation: what a rank is charged for them, and how a backend gets what it can move.

The door does not see the messages of PyTorch's collectives, so these are charged by formula. gloo takes CUDA tensors in
all_reduce and broadcast alone; in all else, and in every message, they go through host memory. An all-to-all of a list
of tensors goes as one tensor: gloo refuses lists of unequal tensors.
"""

from collections.abc import Callable
from typing import Any

import torch

from parallel_lab.network import Price, exchange_cost, ring_cost

ROOTED = ("broadcast", "reduce", "gather", "scatter")
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


def payload_bytes(kind: str, arguments: tuple, ranks: int) -> int:
    """The size of the whole tensor that a collective works on (of gather and scatter: the root's)."""
    sizes = [sum(t.nbytes for t in flatten(argument)) for argument in arguments]
    if kind in ("gather", "scatter"):
        one = 1 if kind == "gather" else 0  # gather reads its second argument, scatter writes its first
        return ranks * sizes[one]
    return max(sizes, default=0)


def exchanged_bytes(arguments: tuple, ranks: int) -> tuple[list[int], list[int]]:
    """What an all-to-all, of one tensor or of a list, sends to each rank and receives from each."""
    taken, given, *splits = arguments
    if isinstance(given, torch.Tensor):
        taken_rows, given_rows = splits[:2]
        return _block_bytes(given, given_rows, ranks), _block_bytes(taken, taken_rows, ranks)
    return [tensor.nbytes for tensor in given], [tensor.nbytes for tensor in taken]


def _block_bytes(tensor: torch.Tensor, rows: list[int], ranks: int) -> list[int]:
    """The sizes of the blocks of `rows` rows each that a tensor is cut into; of equal ones where no rows are given."""
    if not rows:
        return [tensor.nbytes // ranks] * ranks
    row_bytes = tensor.nbytes // max(1, len(tensor))
    return [count * row_bytes for count in rows]


def charges(kind: str, arguments: tuple, ranks: int, size_bytes: int, place: int) -> list[Price]:
    """What a rank pays for a collective on its way out; of an all-to-all, on its way in as well.

    `place` is how many ranks after the root this rank stands; its own rank where there is no root.
    """
    if kind == "all_to_all":
        ways = exchanged_bytes(arguments, ranks)
        return [exchange_cost(size for peer, size in enumerate(sizes) if peer != place) for sizes in ways]
    return [ring_cost(kind, ranks, size_bytes, place if kind in ROOTED else 0)]


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
            tensor.detach().copy_(copy)  # as a backend writes: past autograd
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
            tensor.detach().copy_(part.view(tensor.shape))

    return (taken, given, cuts, [tensor.numel() for tensor in inputs], *rest), back
