"""`sharded_optimizer`: who keeps or sends more than it must fails with its own message."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

from parallel_lab import data_parallel

by_value(__name__)
NAME = "sharded_optimizer"
SOLUTION = solutions(NAME)


PART_OF = SOLUTION["part_of"]


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


def by_all_reduce(params, optimizer_class, **options):
    def add_up(shard, n):
        flat = torch.zeros(n, shard.numel(), dtype=shard.dtype)
        flat[dist.get_rank()] = shard.detach()
        dist.all_reduce(flat)
        return flat.flatten()

    return Flat(params, optimizer_class, options, gather=add_up)


def zero_grad_forgotten(params, optimizer_class, **options):
    return Flat(params, optimizer_class, options, clear=False)


def our_zero(params, optimizer_class, **options):
    return data_parallel.Zero1(params, optimizer_class, **options)


def unsharded(params, optimizer_class, **options):
    return optimizer_class(params, **options)


class Broadcasting:
    """Steps with `inner`, if this rank has one; parameter k then comes from rank `owner(k)`."""

    def __init__(self, params, inner, owner):
        self.params, self.inner, self.owner = params, inner, owner

    def zero_grad(self):
        for p in self.params:
            p.grad = None

    def step(self):
        if self.inner:
            self.inner.step()
        for k, p in enumerate(self.params):
            dist.broadcast(p.data, self.owner(k))


def whole_tensors(params, optimizer_class, **options):
    """Every n-th tensor is this rank's; what PyTorch's does, but for its greedy order."""
    n, rank, params = dist.get_world_size(), dist.get_rank(), list(params)
    own = params[rank::n]
    return Broadcasting(params, optimizer_class(own, **options) if own else None, lambda k: k % n)


def keeps_gathered(params, optimizer_class, **options):
    return Flat(params, optimizer_class, options, keep=True)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (unsharded, 2, "at 3 ranks: rank 0 beside parameters and gradients holds 193 kB"),
    (whole_tensors, 2, "at 3 ranks: rank 1 beside parameters and gradients holds 192 kB"),
    (keeps_gathered, 2, "at 3 ranks: rank 0 beside parameters and gradients holds 225 kB"),
    (by_all_reduce, 4, "at 3 ranks: rank 0 sent 129 kB in step 0, an all-gather of the parameters sends"),
    (zero_grad_forgotten, 0, "rank 0, step 1: whether zero_grad\\(\\) left a gradient"),
    (our_zero, 0, "our_zero uses parallel_lab.data_parallel"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def views_of_one_tensor(params, optimizer_class, **options):
    """Not a cheat: the parameters become views of the flat tensor, and are gathered in place."""
    params, n, rank = list(params), dist.get_world_size(), dist.get_rank()
    sizes = [p.numel() for p in params]
    length = -(-sum(sizes) // n)
    flat = torch.zeros(n * length, dtype=params[0].dtype)
    flat[: sum(sizes)] = torch.cat([p.detach().flatten() for p in params])
    for p, view in zip(params, flat[: sum(sizes)].split(sizes), strict=True):
        p.data = view.view_as(p)
    shard = torch.nn.Parameter(flat[rank * length : (rank + 1) * length])

    class Views(optimizer_class):
        def zero_grad(self):
            for p in params:
                p.grad = None

        def step(self):
            shard.grad = PART_OF([p.grad for p in params], rank, length)
            super().step()
            dist.all_gather_into_tensor(flat, shard.detach().clone())

    return Views([shard], **options)


def test_another_right_answer_passes():
    assert_passes(NAME, views_of_one_tensor)


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (whole_tensors, "at 3 ranks: rank 1 beside parameters and gradients holds 192 kB"),
    (by_all_reduce, "at 3 ranks: rank 0 sent 129 kB in step 0, an all-gather of the parameters sends"),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])
