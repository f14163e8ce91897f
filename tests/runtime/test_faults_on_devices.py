"""What goes wrong while tensors are on a GPU is reported as on the CPU, and the next launch works."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, Kill, RankFailed, launch
from parallel_lab.runtime import rank_device

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def reduce_twice():
    x = torch.ones(4, device=rank_device())
    dist.all_reduce(x)
    dist.all_reduce(x)


def one_broadcasts():
    x = torch.ones(4, device=rank_device())
    dist.broadcast(x, src=1) if dist.get_rank() == 1 else dist.all_reduce(x)


def asks_for_too_much():
    if dist.get_rank() == 1:
        torch.ones(2**60, dtype=torch.uint8, device=rank_device())
    dist.all_reduce(torch.ones(4, device=rank_device()))


def fails_in_its_last_kernel():
    """The kernel runs after the function has returned: nothing in it waits for the GPU."""
    table, index = torch.ones(4, device=rank_device()), torch.tensor([9 * dist.get_rank()], device=rank_device())
    table[index]


def report(error, text, fn, device, **options):
    with pytest.raises(error, match=text):
        launch(fn, ranks=2, device=device, **options)
    assert launch(dist.get_rank, ranks=2, device=device).results == [0, 1]


@pytest.mark.parametrize("device", DEVICES)
def test_a_rank_that_is_killed(device):
    report(RankFailed, "rank 1", reduce_twice, device, faults=[Kill(rank=1, kind="all_reduce", nth=1)])


@pytest.mark.parametrize("device", DEVICES)
def test_different_collectives(device):
    report(Deadlock, "rank 1 called broadcast where rank 0 called all_reduce", one_broadcasts, device, timeout=5)


@pytest.mark.gpu
@pytest.mark.parametrize("fn", [asks_for_too_much, fails_in_its_last_kernel])
def test_what_only_a_gpu_has(fn):
    report(RankFailed, "rank 1 failed", fn, "cuda")
