"""`gathered_layer`: shortcuts in numbers and traffic fail with their own messages."""

import sys

import cloudpickle
import pytest
import through_store
import torch
import torch.distributed as dist
from gathered_unit import GATHER, Unit, scatter
from grading import assert_found_out
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from parallel_lab import data_parallel

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "gathered_layer"


def replicated(layer):
    return layer


def replicated_with_averaging(layer):
    for p in layer.parameters():
        p.register_post_accumulate_grad_hook(lambda p: dist.all_reduce(p.grad.div_(dist.get_world_size())))
    return layer


def by_all_reduce(layer):
    def reduce(of_flat, shard):
        dist.all_reduce(of_flat)
        rank, n = dist.get_rank(), dist.get_world_size()
        return of_flat[rank * len(shard) : (rank + 1) * len(shard)].clone() / n

    return Unit(layer, reduce=reduce)


def sum_not_mean(layer):
    return Unit(layer, reduce=lambda of_flat, shard: scatter(of_flat, shard) * dist.get_world_size())


def own_gradient_only(layer):
    def reduce(of_flat, shard):
        rank = dist.get_rank()
        return of_flat[rank * len(shard) : (rank + 1) * len(shard)].clone()

    return Unit(layer, reduce=reduce)


def gathered_twice(layer):
    def gather(shard):
        GATHER(shard)
        return GATHER(shard)

    return Unit(layer, gather=gather)


def even_sizes_only(layer):
    n, rank = dist.get_world_size(), dist.get_rank()
    flat = torch.cat([p.detach().flatten() for p in layer.parameters()])
    return Unit(layer, shard=flat.view(n, -1)[rank].clone())


COUNT = []


def by_store_for_show(layer):
    def gather(shard):
        COUNT.append(1)
        GATHER(shard)
        return torch.cat(through_store.gather(shard, len(COUNT)))

    return Unit(layer, gather=gather)


def torch_fsdp(layer):
    return fully_shard(layer, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def our_zero(layer):
    return data_parallel.Zero3(layer)


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "replicated": (replicated, "numbers", "at 1 rank: rank 0, parameters(): 4 tensors, expected 2"),
    "replicated, averaged": (
        replicated_with_averaging,
        "numbers",
        "at 1 rank: rank 0, parameters(): 4 tensors, expected 2",
    ),
    "all-reduce": (by_all_reduce, "traffic", "rank 0 called all_reduce"),
    "sum": (sum_not_mean, "numbers", "at 2 ranks: rank 0, step 0: the gradient of the shard of layer 0: element"),
    "no exchange": (
        own_gradient_only,
        "numbers",
        "at 2 ranks: rank 0, step 0: the gradient of the shard of layer 0: element",
    ),
    "gathered twice": (gathered_twice, "traffic", "in step 0, gather, gather and reduce-scatter send"),
    "even sizes only": (even_sizes_only, "uneven", "shape '[4, -1]' is invalid for input of size 25"),
    "collectives for show": (by_store_for_show, "traffic", "changed on the way, and every rank was still right"),
    "torch's": (torch_fsdp, "numbers", "FSDPModule, the answer itself"),
    "ours": (our_zero, "numbers", "our_zero uses parallel_lab.data_parallel"),
}


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
