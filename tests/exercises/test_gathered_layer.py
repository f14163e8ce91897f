"""`gathered_layer`: who holds more than shards, holds it too long, or sends too much fails with its own message."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions
from torch import nn

by_value(__name__)
NAME = "gathered_layer"
SOLUTION = solutions(NAME)


def shard_of(layer):
    """This rank's part of the layer, flat and padded, as a slice of the whole."""
    n, rank = dist.get_world_size(), dist.get_rank()
    flat = torch.cat([p.detach().flatten() for p in layer.parameters()])
    length = -(-len(flat) // n)
    return F.pad(flat, (0, n * length - len(flat)))[rank * length : (rank + 1) * length]


def scatter(of_flat, shard):
    part = torch.empty_like(shard)
    dist.reduce_scatter_tensor(part, of_flat)
    return part / dist.get_world_size()


class Apply(torch.autograd.Function):
    """Forward and backward with the unit's own way to gather and to reduce."""

    @staticmethod
    def forward(ctx, x, shard, unit):
        ctx.save_for_backward(x, shard)
        ctx.unit = unit
        with torch.no_grad():
            return SOLUTION["call"](unit.recipe[0], unit.gather(shard), x)

    @staticmethod
    def backward(ctx, of_output):
        x, shard = ctx.saved_tensors
        x, flat = x.detach().requires_grad_(), ctx.unit.gather(shard).requires_grad_()
        with torch.enable_grad():
            output = SOLUTION["call"](ctx.unit.recipe[0], flat, x)
        of_x, of_flat = torch.autograd.grad(output, (x, flat), of_output)
        return of_x, ctx.unit.reduce(of_flat, shard), None


class Unit(nn.Module):
    """A unit that runs its layer's forward again in backward."""

    def __init__(self, layer, gather=SOLUTION["gather"], reduce=scatter, shard=None, keep=False):
        super().__init__()
        self.shard = nn.Parameter(shard_of(layer).clone() if shard is None else shard)
        self.recipe = [layer if keep else layer.to("meta")]
        self.gather, self.reduce = gather, reduce

    def forward(self, x):
        return Apply.apply(x, self.shard, self)


def by_all_reduce(layer):
    def reduce(of_flat, shard):
        dist.all_reduce(of_flat)
        rank, n = dist.get_rank(), dist.get_world_size()
        return of_flat[rank * len(shard) : (rank + 1) * len(shard)].clone() / n

    return Unit(layer, reduce=reduce)


def even_sizes_only(layer):
    n, rank = dist.get_world_size(), dist.get_rank()
    flat = torch.cat([p.detach().flatten() for p in layer.parameters()])
    return Unit(layer, shard=flat.view(n, -1)[rank].clone())


class Saved(torch.autograd.Function):
    """All-gather forward, reduce-scatter backward; autograd sees the gathered weight."""

    @staticmethod
    def forward(ctx, shard):
        ctx.save_for_backward(shard)
        return SOLUTION["gather"](shard)

    @staticmethod
    def backward(ctx, of_flat):
        return scatter(of_flat.contiguous(), *ctx.saved_tensors)


def left_to_autograd(layer):
    class Naive(Unit):
        def forward(self, x):
            return SOLUTION["call"](self.recipe[0], Saved.apply(self.shard), x)

    return Naive(layer)


def kept_until_backward(layer):
    class Keeping(Unit):
        def __init__(self, layer):
            super().__init__(layer, gather=self.every_other_time)
            self.flat = None

        def every_other_time(self, shard):
            flat, self.flat = self.flat, None
            if flat is None:
                flat = self.flat = SOLUTION["gather"](shard)
            return flat.detach()

    return Keeping(layer)


def slice_of_the_whole(layer):
    return Unit(layer, shard=shard_of(layer))


CHEATS = [  # (answer, the test that sees through it, what it says)
    (kept_until_backward, 4, "after forward and before backward holds"),
    (slice_of_the_whole, 2, "at 4 ranks: rank 0 between two steps holds"),
    (by_all_reduce, 3, "rank 0 called all_reduce"),
    (even_sizes_only, 1, "shape '.4, -1.' is invalid for input of size 25"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


class Emptied(nn.Module):
    """As FSDP does: what was gathered is a parameter of the graph, whose storage is emptied and filled again."""

    def __init__(self, layer):
        super().__init__()
        self.shard = nn.Parameter(shard_of(layer).clone())
        self.recipe = [layer.to("meta")]

    def fill(self, flat):
        flat.untyped_storage().resize_(flat.numel() * flat.element_size())
        with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(flat):
            dist.all_gather_into_tensor(flat.data, self.shard.detach())

    def forward(self, x):
        flat = torch.empty(len(self.shard) * dist.get_world_size(), dtype=self.shard.dtype).requires_grad_()
        self.fill(flat)

        def over(flat):
            flat.untyped_storage().resize_(0)
            part = scatter(flat.grad, self.shard.detach())
            self.shard.grad = part if self.shard.grad is None else self.shard.grad + part
            flat.grad = None

        flat.register_post_accumulate_grad_hook(over)
        output = SOLUTION["call"](self.recipe[0], flat, x)
        flat.untyped_storage().resize_(0)
        output.register_hook(lambda _: self.fill(flat))
        return output


def test_another_right_answer_passes():
    assert_passes(NAME, Emptied)


def gathered_and_all_kept(layer):
    """Autograd sees the gathered weight; the layer stays what it was; the gradient is summed on every rank."""

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx, shard):
            return SOLUTION["gather"](shard)

        @staticmethod
        def backward(ctx, of_flat):
            n, rank = dist.get_world_size(), dist.get_rank()
            of_flat = of_flat.clone()
            dist.all_reduce(of_flat)
            return of_flat.chunk(n)[rank] / n

    class Sharded(Unit):
        def forward(self, x):
            return SOLUTION["call"](self.recipe[0], Gather.apply(self.shard), x)

    return Sharded(layer, keep=True)


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (gathered_and_all_kept, "at 4 ranks: rank 0 between two steps holds"),
    (left_to_autograd, "after forward and before backward holds"),
    (Unit, "at 4 ranks: rank 0: layer 0 computed forward 2 times in a step; expected once"),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])
