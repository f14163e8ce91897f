"""`sharded_optimizer`: the solution scores full marks, the stub none, each shortcut fails with its own message."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch
import torch.distributed as dist

from parallel_lab import data_parallel
from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check, grade
from parallel_lab.course.exercises import EXERCISES

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
NOTEBOOK = "06_sharded_data_parallel"
NAME = "sharded_optimizer"
SOLUTIONS = functions_in(ROOT / "solutions" / f"{NOTEBOOK}.ipynb")
PART_OF = SOLUTIONS["part_of"]


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


# --- one optimizer over the flat vector whose parts the cheats replace


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


def right(params, optimizer_class, **options):
    return Flat(params, optimizer_class, options)


def unsharded(params, optimizer_class, **options):
    return optimizer_class(params, **options)


def rank_0_alone(params, optimizer_class, **options):
    """Rank 0 has all the state and does all the work."""
    params = list(params)
    inner = optimizer_class(params, **options) if dist.get_rank() == 0 else None

    class Broadcasting:
        def zero_grad(self):
            for p in params:
                p.grad = None

        def step(self):
            if inner:
                inner.step()
            for p in params:
                dist.broadcast(p.data, 0)

    return Broadcasting()


def gathers_for_show(params, optimizer_class, **options):
    """The whole state on every rank, beside a shard that is sent round for nothing."""
    params = list(params)
    whole = optimizer_class(params, **options)
    shown = Flat(params, optimizer_class, {"lr": 0.0})

    class Both:
        def zero_grad(self):
            whole.zero_grad()

        def step(self):
            whole.step()
            gather_parts(shown.shard, shown.n)

    return Both()


def whole_tensors(params, optimizer_class, **options):
    """Every n-th tensor is this rank's; what PyTorch's does, but for its greedy order."""
    n, rank, params = dist.get_world_size(), dist.get_rank(), list(params)
    own = params[rank::n]
    inner = optimizer_class(own, **options) if own else None

    class Whole:
        def zero_grad(self):
            for p in params:
                p.grad = None

        def step(self):
            if inner:
                inner.step()
            for k, p in enumerate(params):
                dist.broadcast(p.data, k % n)

    return Whole()


KEPT = {}


def copy_in_a_global(params, optimizer_class, **options):
    params = list(params)
    KEPT["all"] = torch.cat([p.detach().flatten() for p in params])
    return Flat(params, optimizer_class, options)


def moments_in_numpy(params, optimizer_class, **options):
    """All state on every rank, put away in NumPy arrays between steps; the shard is gathered for show."""
    params = list(params)
    whole = optimizer_class(params, **options)
    shown = Flat(params, optimizer_class, {"lr": 0.0})

    class Hidden:
        def __init__(self):
            self.away = {}

        def zero_grad(self):
            whole.zero_grad()

        def step(self):
            for k, state in self.away.items():
                whole.state[params[k]] = {name: torch.from_numpy(value) for name, value in state.items()}
            whole.step()
            self.away = {
                k: {name: t.numpy().copy() for name, t in whole.state[p].items()} for k, p in enumerate(params)
            }
            whole.state.clear()
            gather_parts(shown.shard, shown.n)

    return Hidden()


def keeps_gathered(params, optimizer_class, **options):
    return Flat(params, optimizer_class, options, keep=True)


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

    def through_store(shard, n):
        store, place = dist.distributed_c10d._get_default_store(), len(count)
        count.append(1)
        store.set(f"{place}/{dist.get_rank()}", shard.detach().numpy().tobytes())
        gather_parts(shard, n)
        parts = [torch.frombuffer(bytearray(store.get(f"{place}/{r}")), dtype=shard.dtype) for r in range(n)]
        return torch.cat(parts)

    return Flat(params, optimizer_class, options, gather=through_store)


def torch_zero(params, optimizer_class, **options):
    # Not at the top: this module of torch warns when it is imported.
    optim = importlib.import_module("torch.distributed.optim")
    return optim.ZeroRedundancyOptimizer(list(params), optimizer_class, **options)


def our_zero(params, optimizer_class, **options):
    return data_parallel.Zero1(params, optimizer_class, **options)


HELD = "beside parameters and gradients, holds"
CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "unsharded": (unsharded, "held", f"at 3 ranks: rank 0, {HELD} 193 kB"),
    "rank 0 alone": (rank_0_alone, "held", f"at 3 ranks: rank 0, {HELD} 193 kB"),
    "gathered for show": (gathers_for_show, "held", f"at 3 ranks: rank 0, {HELD} "),
    "whole tensors": (whole_tensors, "held", f"at 3 ranks: rank 1, {HELD} 192 kB"),
    "a copy in a global": (copy_in_a_global, "held", f"at 3 ranks: rank 0, {HELD} 225.1 kB"),
    "moments in NumPy": (moments_in_numpy, "held", f"at 3 ranks: rank 0, {HELD} "),
    "what was gathered is kept": (keeps_gathered, "held", f"at 3 ranks: rank 0, {HELD} 225.1 kB"),
    "no all-gather": (never_gathers, "numbers", "at 2 ranks: rank 0, after step 0: parameter "),
    "all-reduce": (
        by_all_reduce,
        "traffic",
        "at 3 ranks: rank 0 sent 128.6 kB in step 0, an all-gather of the parameters sends",
    ),
    "gradients exchanged again": (
        averages_again,
        "traffic",
        "at 3 ranks: rank 0 sent 192.9 kB in step 0, an all-gather",
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


@pytest.mark.parametrize(("cheat", "test", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, test, said):
    """The one grader that must see through it; a full check would run the others as well."""
    exercise = EXERCISES[NAME]
    telling = tuple(one for one in exercise.tests if one.__name__ == test)
    report = grade(replace(exercise, tests=telling), cheat, save=False)
    assert report.score == 0
    assert said in repr(report), repr(report)


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


def test_other_right_answers_pass():
    report = check(NAME, views_of_one_tensor)
    assert report.passed, repr(report)
