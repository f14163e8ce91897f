"""An optimizer over the flat vector of parameters, whose parts the cheats of `sharded_optimizer` replace."""

import sys

import cloudpickle
import torch
import torch.distributed as dist
from grading import solutions

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PART_OF = solutions("06_sharded_data_parallel")["part_of"]


def gather_parts(shard, n):
    flat = torch.empty(n * shard.numel(), dtype=shard.dtype)
    dist.all_gather_into_tensor(flat, shard.detach())
    return flat


class Flat:
    """The right answer, step by step; `options` are the cheat's, `inner` the optimizer's."""

    def __init__(self, params, optimizer_class, options, gather=gather_parts, gradient=PART_OF, keep=False, clear=True):
        self.n, self.rank = dist.get_world_size(), dist.get_rank()
        self.params, self.gather, self.gradient, self.keep, self.clear = list(params), gather, gradient, keep, clear
        self.sizes = [p.numel() for p in self.params]
        self.length = -(-sum(self.sizes) // self.n)
        values = [p.detach() for p in self.params]
        self.shard = torch.nn.Parameter(PART_OF(values, self.rank, self.length))
        self.inner = optimizer_class([self.shard], **options)
        self.kept = None

    def zero_grad(self):
        for p in self.params if self.clear else ():
            p.grad = None

    @torch.no_grad()
    def step(self):
        self.shard.grad = self.gradient([p.grad for p in self.params], self.rank, self.length)
        self.inner.step()
        flat = self.gather(self.shard, self.n)
        for p, new in zip(self.params, flat[: sum(self.sizes)].split(self.sizes), strict=True):
            p.copy_(new.view_as(p))
        self.kept = flat if self.keep else None
