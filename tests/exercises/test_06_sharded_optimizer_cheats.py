"""`sharded_optimizer`: shortcuts in numbers and traffic fail with their own messages."""

import importlib
import sys

import cloudpickle
import pytest
import through_store
import torch
import torch.distributed as dist
from flat_optimizer import PART_OF, Flat, gather_parts
from grading import assert_found_out

from parallel_lab import data_parallel

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "sharded_optimizer"


def never_gathers(params, optimizer_class, **options):
    def own_only(shard, n):
        flat = torch.zeros(n, shard.numel(), dtype=shard.dtype)
        flat[dist.get_rank()] = shard.detach()
        return flat.flatten()

    return Flat(params, optimizer_class, options, gather=own_only)


def by_all_reduce(params, optimizer_class, **options):
    def add_up(shard, n):
        flat = torch.zeros(n, shard.numel(), dtype=shard.dtype)
        flat[dist.get_rank()] = shard.detach()
        dist.all_reduce(flat)
        return flat.flatten()

    return Flat(params, optimizer_class, options, gather=add_up)


def averages_again(params, optimizer_class, **options):
    def reduced(gradients, rank, length):
        part = PART_OF(gradients, rank, length)
        for gradient in gradients:
            dist.all_reduce(gradient.clone())
        return part

    return Flat(params, optimizer_class, options, gradient=reduced)


def sums_gradients(params, optimizer_class, **options):
    def summed(gradients, rank, length):
        return PART_OF(gradients, rank, length) * dist.get_world_size()

    return Flat(params, optimizer_class, options, gradient=summed)


def fresh_state_each_step(params, optimizer_class, **options):
    class Forgetful(Flat):
        def step(self):
            self.inner = optimizer_class([self.shard], **options)
            super().step()
            self.inner = None

    return Forgetful(params, optimizer_class, options)


def even_sizes_only(params, optimizer_class, **options):
    flat = Flat(params, optimizer_class, options)
    flat.length = sum(flat.sizes) // flat.n
    flat.shard = torch.nn.Parameter(PART_OF([p.detach() for p in flat.params], flat.rank, flat.length))
    flat.inner = optimizer_class([flat.shard], **options)
    return flat


def zero_grad_forgotten(params, optimizer_class, **options):
    return Flat(params, optimizer_class, options, clear=False)


def always_sgd(params, optimizer_class, **options):
    return Flat(params, torch.optim.SGD, {"lr": options["lr"]})


def by_store_for_show(params, optimizer_class, **options):
    count = []

    def gather(shard, n):
        count.append(1)
        gather_parts(shard, n)
        return torch.cat(through_store.gather(shard, len(count)))

    return Flat(params, optimizer_class, options, gather=gather)


def torch_zero(params, optimizer_class, **options):
    # Not at the top: this module of torch warns when it is imported.
    optim = importlib.import_module("torch.distributed.optim")
    return optim.ZeroRedundancyOptimizer(list(params), optimizer_class, **options)


def our_zero(params, optimizer_class, **options):
    return data_parallel.Zero1(params, optimizer_class, **options)


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "no all-gather": (never_gathers, "numbers", "at 2 ranks: rank 0, after step 0: parameter "),
    "all-reduce": (
        by_all_reduce,
        "traffic",
        "at 3 ranks: rank 0 sent 129 kB in step 0, an all-gather of the parameters sends",
    ),
    "gradients exchanged again": (
        averages_again,
        "traffic",
        "at 3 ranks: rank 0 sent 193 kB in step 0, an all-gather",
    ),
    "sum of gradients": (sums_gradients, "numbers", "at 2 ranks: rank 0, after step 0: parameter 0: element"),
    "state made anew": (fresh_state_each_step, "numbers", "at 1 rank: rank 0, after step 1: parameter 0: element"),
    "even sizes only": (even_sizes_only, "numbers", "at 2 ranks"),
    "zero_grad": (zero_grad_forgotten, "numbers", "at 1 rank: rank 0: zero_grad() left a gradient"),
    "another optimizer": (always_sgd, "numbers", "at 1 rank: rank 0, after step 0: parameter 0: element"),
    "collectives for show": (by_store_for_show, "traffic", "changed on the way, and every rank was still right"),
    "torch's": (torch_zero, "numbers", "zero_redundancy_optimizer.ZeroRedundancyOptimizer, the answer itself"),
    "ours": (our_zero, "numbers", "our_zero uses parallel_lab.data_parallel"),
}


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
