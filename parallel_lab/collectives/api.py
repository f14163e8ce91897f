"""The collectives as functions on tensors: an algorithm's plan, and the executor that runs it.

As everywhere in the package, a rank is a position in the given group, and `group=None` is the default group.
"""

from functools import lru_cache
from math import prod
from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives import (
    full_mesh,
    halving_doubling,
    hierarchical,
    recursive_doubling,
    relay,
    ring,
    star,
    tree,
)
from parallel_lab.collectives.chunks import ChunkPlan
from parallel_lab.collectives.execute import execute, execute_chunks
from parallel_lab.runtime.group import member

PIECE_BYTES = 4 * 2**20  # what a ring sends at a time, at least
MOST_PIECES = 16
EARLY_BYTES = 16 * 2**20  # up to here a ring posts all its receives at once

ALGORITHMS: dict[str, ModuleType] = {
    "ring": ring,
    "tree": tree,
    "recursive_doubling": recursive_doubling,
    "halving_doubling": halving_doubling,
    "full_mesh": full_mesh,
    "star": star,
    "hierarchical": hierarchical,
    "relay": relay,
}


def algorithms(collective: str) -> list[str]:
    """The names of the algorithms that have a plan for `collective`."""
    return [name for name, module in ALGORITHMS.items() if hasattr(module, f"{collective}_plan")]


@lru_cache(maxsize=64)
def plan_for(collective: str, algorithm: str, *arguments: int) -> ChunkPlan:
    """The plan of `algorithm` for `collective`; built once for the same arguments.

    Raises:
        ValueError: the algorithm is unknown or has no such collective; the message lists those that have.
    """
    known = algorithms(collective)
    if algorithm not in known:
        raise ValueError(f"unknown algorithm {algorithm!r} for {collective}: expected one of {', '.join(known)}")
    return getattr(ALGORITHMS[algorithm], f"{collective}_plan")(*arguments)


def all_reduce(
    tensor: Tensor,
    group: dist.ProcessGroup | None = None,
    algorithm: str = "ring",
    op: str = "sum",
    ranks_per_node: int | None = None,
) -> Tensor:
    """Replaces `tensor` by its sum (or `mean`, or `max`) over all ranks, in place, and returns it.

    The tensor is contiguous, with the same shape and dtype on every rank. Algorithms: `ring`, `tree`,
    `recursive_doubling`, `halving_doubling` (with near partners first), `full_mesh`, `star`, and `hierarchical`, where
    `ranks_per_node` neighboring ranks share a node.

    Raises:
        ValueError: an unknown algorithm or op, a tensor that is not contiguous, a rank that is not in the group.
    """
    n = member(group).size()
    if algorithm == "hierarchical":
        if ranks_per_node is None or ranks_per_node < 1 or n % ranks_per_node:
            raise ValueError(f"hierarchical needs ranks_per_node, a divisor of the {n} ranks; it is {ranks_per_node}")
        arguments = n // ranks_per_node, ranks_per_node
    elif algorithm == "ring":  # with the pieces and the early receives that `benchmarks/all_reduce.py` found best
        pieces = max(1, min(MOST_PIECES, tensor.nbytes // (n * PIECE_BYTES)))
        arguments = n, pieces, 0 if tensor.nbytes > EARLY_BYTES else n
    else:
        arguments = (n,)
    execute(plan_for("all_reduce", algorithm, *arguments), tensor, group, op)
    return tensor


def reduce_scatter(
    tensor: Tensor, group: dist.ProcessGroup | None = None, algorithm: str = "ring", op: str = "sum"
) -> Tensor:
    """This rank's share of the sum: rows of `tensor` along dim 0, as a new tensor; `tensor` is left as it is.

    Rank r gets `total.tensor_split(n)[r]`, so the first `len(tensor) % n` ranks get a row more. The work is done on a
    copy of `tensor`. Algorithms: `ring`, `full_mesh`, and `halving_doubling` for powers of two.
    """
    _require_rows(tensor)
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    group = member(group)
    plan = plan_for("reduce_scatter", algorithm, group.size())
    execute(plan, total, group, op, unit=prod(total.shape[1:]) or 1)
    return total.tensor_split(plan.ranks)[group.rank()].clone()


def all_gather(
    tensor: Tensor, group: dist.ProcessGroup | None = None, algorithm: str = "ring", rows: int | None = None
) -> Tensor:
    """The tensors of all ranks, one after another along dim 0, as a new tensor of `rows` rows.

    `rows` is n times this rank's rows by default, which is right when all ranks have equally many. Otherwise give it,
    and let rank r hold the rows of `tensor_split(n)[r]`, which is what `reduce_scatter` returns. Algorithms: `ring`,
    `full_mesh`, and `halving_doubling` for powers of two.

    Raises:
        ValueError: as `all_reduce`; or this rank's rows are not its share of `rows`.
    """
    _require_rows(tensor)
    group = member(group)
    n, rank = group.size(), group.rank()
    rows = n * len(tensor) if rows is None else rows
    share = rows // n + (rank < rows % n)
    if len(tensor) != share:
        raise ValueError(f"rank {rank} of {n} has {len(tensor)} rows; its share of {rows} rows is {share}")
    gathered = tensor.new_empty((rows, *tensor.shape[1:]))
    gathered.tensor_split(n)[rank].copy_(tensor.detach())
    execute(plan_for("all_gather", algorithm, n), gathered, group, unit=prod(gathered.shape[1:]) or 1)
    return gathered


def broadcast(tensor: Tensor, src: int = 0, group: dist.ProcessGroup | None = None, algorithm: str = "tree") -> Tensor:
    """Overwrites `tensor` on every rank by rank `src`'s, in place, and returns it: `tree`, `ring` or `star`."""
    return _rooted("broadcast", tensor, src, group, algorithm, "sum")


def reduce(
    tensor: Tensor, dst: int = 0, group: dist.ProcessGroup | None = None, algorithm: str = "tree", op: str = "sum"
) -> Tensor:
    """Replaces `tensor` on rank `dst` by the sum over all ranks, in place, and returns it: `tree`, `ring` or `star`.

    On other ranks it holds a partial sum afterwards, and is of no use.
    """
    return _rooted("reduce", tensor, dst, group, algorithm, op)


def _rooted(
    collective: str, tensor: Tensor, root: int, group: dist.ProcessGroup | None, algorithm: str, op: str
) -> Tensor:
    n = member(group).size()
    if not 0 <= root < n:
        raise ValueError(f"rank {root}: the group has ranks 0 to {n - 1}")
    execute(plan_for(collective, algorithm, n, root), tensor, group, op)
    return tensor


def all_to_all(
    tensor: Tensor, group: dist.ProcessGroup | None = None, algorithm: str = "full_mesh", both_ways: bool = False
) -> Tensor:
    """Sends block j of `tensor`'s rows to rank j, and returns a new tensor whose block i came from rank i.

    Algorithms: `full_mesh`, which sends each block to its rank directly, and `relay`, where blocks go from neighbor to
    neighbor round a ring, one way or `both_ways`. A relay holds n times the bytes of `tensor` while it runs.

    Raises:
        ValueError: as `all_reduce`; or the rows cannot be cut into n equal blocks.
    """
    _require_rows(tensor)
    group = member(group)
    n = group.size()
    if len(tensor) % n:
        raise ValueError(f"{len(tensor)} rows cannot be cut into {n} equal blocks")
    plan = plan_for("all_to_all", algorithm, n, *([both_ways] if algorithm == "relay" else []))
    exchange = _relay if algorithm == "relay" else _exchange
    return exchange(plan, tensor.detach().contiguous().view(n, -1), group).view(tensor.shape)


def _exchange(plan: ChunkPlan, given: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The blocks from all ranks, where `given[j]` is for rank j."""
    n, rank = group.size(), group.rank()
    taken = torch.empty_like(given)
    taken[rank] = given[rank]
    # Part i * n + j is the block on its way from i to j: this rank has row `rank` of that grid and gets column `rank`.
    chunks = [taken.view(-1)[:0]] * (n * n)
    for peer in range(n):
        chunks[peer * n + rank] = taken[peer]
    chunks[rank * n : (rank + 1) * n] = list(given)
    execute_chunks(plan, chunks, group)
    return taken


def _relay(plan: ChunkPlan, given: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The same round a ring: row i holds what has come from rank i, in the order of the distance that it has to go."""
    n, rank, block = group.size(), group.rank(), given.shape[1]
    held = given.new_empty(n, n * block)
    held[rank] = given.roll(-rank, 0).view(-1)
    cuts = [leaf // 2 * block + leaf % 2 * (block // 2) for leaf in range(2 * n + 1)]  # two leaves per block
    rows = [divmod(first, 2 * n) for first, _ in plan.extents]
    lengths = [last - first for first, last in plan.extents]
    pieces = [held[i, cuts[a] : cuts[a + length]] for (i, a), length in zip(rows, lengths, strict=True)]
    execute_chunks(plan, pieces, group)
    return torch.stack([held.view(n, n, block)[i, (rank - i) % n] for i in range(n)])


def _require_rows(tensor: Tensor) -> None:
    if tensor.dim() == 0:
        raise ValueError("a tensor with no dim cannot be cut into rows: pass tensor.view(1)")
