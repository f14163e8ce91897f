"""Every collective, torch's and ours by each algorithm, on the CPU and on a GPU that the ranks share.

The numbers are small and whole, so every dtype holds their sums exactly: nothing may differ by a bit.
"""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import collectives, launch
from parallel_lab.runtime import rank_device

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64]


def given(rank, rows, dtype):
    return (torch.arange(rows * 3, device=rank_device()).view(rows, 3) % 7 + rank).to(dtype)


def of_torch(n, rank, dtype):
    """For each collective of torch.distributed what it gave and what is right."""
    mine, all_ = given(rank, 5, dtype), [given(other, 5, dtype) for other in range(n)]
    blocks, theirs = given(rank, 5 * n, dtype), [given(other, 5 * n, dtype) for other in range(n)]
    total, root = sum(all_), n - 1
    share = sum(theirs).chunk(n)[rank]
    dist.all_reduce(reduced := mine.clone())
    yield "all_reduce", reduced, total
    dist.broadcast(sent := mine.clone(), root)
    yield "broadcast", sent, all_[root]
    dist.reduce(reduced := mine.clone(), root)
    yield "reduce", reduced if rank == root else total, total
    dist.all_gather(parts := [torch.empty_like(mine) for _ in range(n)], mine)
    yield "all_gather", torch.cat(parts), torch.cat(all_)
    dist.all_gather_into_tensor(whole := torch.empty_like(blocks), mine)
    yield "all_gather_into_tensor", whole, torch.cat(all_)
    dist.reduce_scatter(part := torch.empty_like(mine), list(blocks.chunk(n)))
    yield "reduce_scatter", part, share
    dist.reduce_scatter_tensor(part := torch.empty_like(mine), blocks)
    yield "reduce_scatter_tensor", part, share
    dist.all_to_all_single(swapped := torch.empty_like(blocks), blocks)
    yield "all_to_all_single", swapped, torch.cat([each.chunk(n)[rank] for each in theirs])
    parts = [torch.empty_like(mine) for _ in range(n)] if rank == root else None
    dist.gather(mine, parts, root)
    yield "gather", torch.cat(parts or all_), torch.cat(all_)
    dist.scatter(part := torch.empty_like(mine), list(blocks.chunk(n)) if rank == root else None, root)
    yield "scatter", part, theirs[root].chunk(n)[rank]


def of_ours(n, rank, dtype):
    """The same for our collectives by each algorithm, with rows that the ranks cannot share evenly."""
    mine, all_ = given(rank, 7, dtype), [given(other, 7, dtype) for other in range(n)]
    blocks, theirs = given(rank, 5 * n, dtype), [given(other, 5 * n, dtype) for other in range(n)]
    total, root = sum(all_), n - 1
    for algorithm in collectives.algorithms("all_reduce"):
        per_node = {"ranks_per_node": 1} if algorithm == "hierarchical" else {}
        yield "our all_reduce", collectives.all_reduce(mine.clone(), algorithm=algorithm, **per_node), total
    for algorithm in collectives.algorithms("broadcast"):
        yield "our broadcast", collectives.broadcast(mine.clone(), root, algorithm=algorithm), all_[root]
    for algorithm in collectives.algorithms("reduce"):
        reduced = collectives.reduce(mine.clone(), root, algorithm=algorithm)
        yield "our reduce", reduced if rank == root else total, total
    for algorithm in ("ring", "full_mesh"):
        share = collectives.reduce_scatter(mine, algorithm=algorithm)
        yield "our reduce_scatter", share, total.tensor_split(n)[rank]
        yield "our all_gather", collectives.all_gather(share, algorithm=algorithm, rows=7), total
    yield "our all_to_all", collectives.all_to_all(blocks), torch.cat([each.chunk(n)[rank] for each in theirs])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_collective_is_right_to_the_last_bit(device, ranks):
    def wrong():
        rank = dist.get_rank()
        assert rank_device().type == device
        return [
            (name, dtype)
            for dtype in DTYPES
            for cases in (of_torch, of_ours)
            for name, got, right in cases(ranks, rank, dtype)
            if not (got.device.type == device and torch.equal(got, right))
        ]

    assert launch(wrong, ranks=ranks, device=device, timeout=120).results == [[]] * ranks
