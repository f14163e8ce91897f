"""`gathered_layer`: the solution scores full marks, the stub none, each shortcut fails with its own message."""

import sys
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from parallel_lab import data_parallel
from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check, grade
from parallel_lab.course.exercises import EXERCISES

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
NOTEBOOK = "06_sharded_data_parallel"
NAME = "gathered_layer"
SOLUTIONS = functions_in(ROOT / "solutions" / f"{NOTEBOOK}.ipynb")
CALL, GATHER = SOLUTIONS["call"], SOLUTIONS["gather"]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def test_solution_scores_full_marks():
    report = check(NAME, SOLUTIONS[NAME])
    assert report.score == 1, repr(report)
    assert EXERCISES[NAME].solution_note in repr(report)


def test_untouched_stub_scores_nothing():
    stubs = functions_in(ROOT / "exercises" / f"{NOTEBOOK}.ipynb")
    report = check(NAME, stubs[NAME])
    assert report.score == 0
    assert not report.passed


def test_exercises_are_what_the_command_writes():
    written = (ROOT / "exercises" / f"{NOTEBOOK}.ipynb").read_bytes().decode()
    assert written == generate.generate(ROOT, NOTEBOOK)


# --- a unit whose parts the cheats replace


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
            return CALL(unit.recipe[0], unit.gather(shard), x)

    @staticmethod
    def backward(ctx, of_output):
        x, shard = ctx.saved_tensors
        x, flat = x.detach().requires_grad_(), ctx.unit.gather(shard).requires_grad_()
        with torch.enable_grad():
            output = CALL(ctx.unit.recipe[0], flat, x)
        of_x, of_flat = torch.autograd.grad(output, (x, flat), of_output)
        return of_x, ctx.unit.reduce(of_flat, shard), None


class Unit(nn.Module):
    def __init__(self, layer, gather=GATHER, reduce=scatter, shard=None, keep=False):
        super().__init__()
        self.shard = nn.Parameter(shard_of(layer).clone() if shard is None else shard)
        self.recipe = [layer if keep else layer.to("meta")]
        self.gather, self.reduce = gather, reduce

    def forward(self, x):
        return Apply.apply(x, self.shard, self)


def replicated(layer):
    return layer


def replicated_with_averaging(layer):
    for p in layer.parameters():
        p.register_post_accumulate_grad_hook(lambda p: dist.all_reduce(p.grad.div_(dist.get_world_size())))
    return layer


class Saved(torch.autograd.Function):
    """All-gather forward, reduce-scatter backward; autograd sees the gathered weight."""

    @staticmethod
    def forward(ctx, shard):
        ctx.save_for_backward(shard)
        return GATHER(shard)

    @staticmethod
    def backward(ctx, of_flat):
        return scatter(of_flat.contiguous(), *ctx.saved_tensors)


def left_to_autograd(layer):
    class Naive(Unit):
        def forward(self, x):
            return CALL(self.recipe[0], Saved.apply(self.shard), x)

    return Naive(layer)


def never_freed(layer):
    """Gathered once a step, and kept."""

    class Keeping(Unit):
        def __init__(self, layer):
            super().__init__(layer, gather=self.once)
            self.flat = None

        def once(self, shard):
            self.flat = GATHER(shard) if self.flat is None else self.flat
            return self.flat.detach()

    return Keeping(layer)


def kept_until_backward(layer):
    class Keeping(Unit):
        def __init__(self, layer):
            super().__init__(layer, gather=self.every_other_time)
            self.flat = None

        def every_other_time(self, shard):
            flat, self.flat = self.flat, None
            if flat is None:
                flat = self.flat = GATHER(shard)
            return flat.detach()

    return Keeping(layer)


def slice_of_the_whole(layer):
    return Unit(layer, shard=shard_of(layer))


WHOLE = []


def copy_in_a_global(layer):
    """A whole copy computes; shards are gathered and thrown away."""
    WHOLE.append([p.detach().clone() for p in layer.parameters()])
    return Unit(layer)


def copy_in_numpy(layer):
    unit = Unit(layer)
    unit.hidden = [GATHER(unit.shard).numpy().copy()]
    return unit


def layer_not_emptied(layer):
    return Unit(layer, keep=True)


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


UNITS, GATHERED = [], {}


def all_at_once(layer):
    """The first layer of each pass gathers all; the last one frees them."""

    class Together(Unit):
        def __init__(self, layer):
            super().__init__(layer, gather=self.from_all)
            UNITS.append(self)

        def from_all(self, shard):
            if not GATHERED:
                GATHERED.update({id(unit): GATHER(unit.shard) for unit in UNITS})
            last = len(GATHERED) == 1
            flat = GATHERED.pop(id(self)) if last else GATHERED[id(self)]
            self.count = getattr(self, "count", 0) + 1
            if sum(unit.count for unit in UNITS if hasattr(unit, "count")) % len(UNITS) == 0:
                GATHERED.clear()
            return flat.detach().clone() if last else flat.detach()

    return Together(layer)


def layer_not_used(layer):
    """Right in every number, with a matrix product of its own."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, shard, shape):
            ctx.save_for_backward(x, shard)
            ctx.shape = shape
            weight, bias = Own.parts(shard, shape)
            return x @ weight.T + bias

        @staticmethod
        def parts(shard, shape):
            count = shape[0] * shape[1]
            flat = GATHER(shard)
            return flat[:count].view(shape), flat[count : count + shape[0]]

        @staticmethod
        def backward(ctx, of_output):
            x, shard = ctx.saved_tensors
            weight, _ = Own.parts(shard, ctx.shape)
            flat = torch.cat([(of_output.T @ x).flatten(), of_output.sum(0)])
            flat = F.pad(flat, (0, len(shard) * dist.get_world_size() - len(flat)))
            return of_output @ weight, scatter(flat, shard), None

    class Linear(Unit):
        def forward(self, x):
            return Own.apply(x, self.shard, self.recipe[0].weight.shape)

    return Linear(layer)


def even_sizes_only(layer):
    n, rank = dist.get_world_size(), dist.get_rank()
    flat = torch.cat([p.detach().flatten() for p in layer.parameters()])
    return Unit(layer, shard=flat.view(n, -1)[rank].clone())


def by_store_for_show(layer):
    def gather(shard):
        store, n, place = dist.distributed_c10d._get_default_store(), dist.get_world_size(), len(WHOLE)
        WHOLE.append(None)
        store.set(f"{place}/{dist.get_rank()}", shard.detach().numpy().tobytes())
        GATHER(shard)
        parts = [torch.frombuffer(bytearray(store.get(f"{place}/{r}")), dtype=shard.dtype) for r in range(n)]
        return torch.cat(parts)

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
    "left to autograd": (left_to_autograd, "held", "after forward and before backward holds"),
    "never freed": (never_freed, "numbers", "at 1 rank: rank 0, step 1: output 0: element"),
    "kept until backward": (kept_until_backward, "held", "after forward and before backward holds"),
    "a slice of the whole": (slice_of_the_whole, "held", "at 4 ranks: rank 0 between two steps holds"),
    "a copy in a global": (copy_in_a_global, "held", "at 4 ranks: rank 0 between two steps holds"),
    "a copy in NumPy": (copy_in_numpy, "held", "at 4 ranks: rank 0 between two steps holds"),
    "the layer is not emptied": (layer_not_emptied, "held", "at 4 ranks: rank 0 between two steps holds"),
    "all-reduce": (by_all_reduce, "traffic", "rank 0 called all_reduce"),
    "sum": (sum_not_mean, "numbers", "at 2 ranks: rank 0, step 0: the gradient of the shard of layer 0: element"),
    "no exchange": (
        own_gradient_only,
        "numbers",
        "at 2 ranks: rank 0, step 0: the gradient of the shard of layer 0: element",
    ),
    "gathered twice": (gathered_twice, "traffic", "in step 0, gather, gather and reduce-scatter send"),
    "all layers at once": (all_at_once, "held", "at 4 ranks: rank 0 in the forward of layer 0 holds"),
    "the layer is not used": (layer_not_used, "held", "the layer was never called"),
    "even sizes only": (even_sizes_only, "uneven", "shape '[4, -1]' is invalid for input of size 25"),
    "collectives for show": (by_store_for_show, "traffic", "changed on the way, and every rank was still right"),
    "torch's": (torch_fsdp, "numbers", "FSDPModule, the answer itself"),
    "ours": (our_zero, "numbers", "our_zero uses parallel_lab.data_parallel"),
}


@pytest.mark.parametrize(("cheat", "test", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, test, said):
    """The one grader that must see through it; a full check would run the others as well."""
    exercise = EXERCISES[NAME]
    telling = tuple(one for one in exercise.tests if one.__name__ == test)
    report = grade(replace(exercise, tests=telling), cheat, save=False)
    assert report.score == 0
    assert said in repr(report), repr(report)


# --- not a cheat: FSDP's own way, which empties the storage that autograd has saved, and fills it again


class Emptied(nn.Module):
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
        output = CALL(self.recipe[0], flat, x)
        flat.untyped_storage().resize_(0)
        output.register_hook(lambda _: self.fill(flat))
        return output


def test_other_right_answers_pass():
    report = check(NAME, Emptied)
    assert report.passed, repr(report)
