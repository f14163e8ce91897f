"""PyTorch's own DDP, FSDP2, tensor parallel and pipelining through the door, on the CPU and on a GPU that ranks share.

Tolerance: float64, 1e-12 on values of order 1; the only difference is the order of additions.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import launch
from parallel_lab.runtime import make_mesh, rank_device

WIDTH = 16


def net():
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64) for _ in range(2)])


def rows(count=1):
    return torch.ones(count, WIDTH, dtype=torch.float64)


def gradients(model):
    model(rows().to(rank_device())).square().mean().backward()
    return [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]


def ddp():
    return gradients(DistributedDataParallel(net().to(rank_device())))


def fsdp2():
    model = net().to(rank_device())
    for layer in model:
        fully_shard(layer, mesh=make_mesh(dp=2))
    return gradients(fully_shard(model, mesh=make_mesh(dp=2)))


def fsdp2_of_its_own_mesh():
    """PyTorch chooses each rank's device."""
    model = net()
    for layer in model:
        fully_shard(layer)
    return gradients(fully_shard(model))


def tensor_parallel():
    plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
    return [parallelize_module(net().to(rank_device()), make_mesh(tp=2), plan)(rows().to(rank_device())) + 0]


def pipeline():
    rank, device = dist.get_rank(), rank_device()
    schedule = ScheduleGPipe(PipelineStage(net()[rank].to(device), rank, 2, device), 4)
    return [schedule.step()] if rank else [schedule.step(rows(4).to(device))]


def alone():
    model = net()
    model(rows()).square().mean().backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (ddp, alone),
        (fsdp2, alone),
        (fsdp2_of_its_own_mesh, alone),
        (tensor_parallel, lambda: [net()(rows())]),
        (pipeline, lambda: [net()(rows(4))]),
    ],
    ids=["DDP", "FSDP2", "FSDP2 of its own mesh", "tensor parallel", "pipelining"],
)
def test_it_ends_where_one_process_ends(program, expected, device):
    for found, right in zip(launch(program, ranks=2, device=device)[1], expected(), strict=True):
        torch.testing.assert_close(found.cpu(), right, rtol=0, atol=1e-12)
