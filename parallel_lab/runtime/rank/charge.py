"""What a rank is charged for a collective of PyTorch, whose messages the door does not see."""

import torch

from parallel_lab.network import Price, exchange_cost, ring_cost
from parallel_lab.runtime.rank import stage

ROOTED = ("broadcast", "reduce", "gather", "scatter")


def payload_bytes(kind: str, arguments: tuple, ranks: int) -> int:
    """The size of the whole tensor that a collective works on (of gather and scatter: the root's)."""
    sizes = [sum(t.nbytes for t in stage.flatten(argument)) for argument in arguments]
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
