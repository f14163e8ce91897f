"""`training_framework`: the solution scores full marks, the stub none, each shortcut fails with its own message."""

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from parallel_lab import data_parallel
from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check, grade
from parallel_lab.course.exercises import EXERCISES

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
NOTEBOOK = "03_data_parallel"
NAME = "training_framework"
SOLUTIONS = functions_in(ROOT / "solutions" / f"{NOTEBOOK}.ipynb")
RESUME, SAVE = SOLUTIONS["resume"], SOLUTIONS["save"]


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


# --- one loop whose parts the cheats replace


def own_rows(k, batch):
    return torch.arange(k * batch, (k + 1) * batch).tensor_split(dist.get_world_size())[dist.get_rank()]


def add_up(model, total):
    for tensor in [*(p.grad for p in model.parameters()), total]:
        dist.all_reduce(tensor)


def summed(output, target, batch):
    return F.cross_entropy(output, target, reduction="sum") / batch


def framework(
    rows_of=own_rows, loss_of=summed, exchange=add_up, resume=RESUME, save=SAVE, micro=lambda m: m, each=None
):
    def training_framework(model, inputs, targets, *, steps, batch, microbatches=1, lr=0.1, checkpoint=None):
        optimizer, losses = torch.optim.SGD(model.parameters(), lr, momentum=0.9), []
        for k in range(resume(model, optimizer, checkpoint), steps):
            total = torch.zeros((), dtype=inputs.dtype)
            optimizer.zero_grad()
            for rows in rows_of(k, batch).tensor_split(micro(microbatches)):
                loss = loss_of(model(inputs[rows]), targets[rows], batch)
                loss.backward()
                total += loss.detach()
                if each:
                    each(model)
            exchange(model, total)
            optimizer.step()
            losses.append(total.item())
        save(model, optimizer, steps, checkpoint)
        return losses

    return training_framework


def all_rows(k, batch):
    return torch.arange(k * batch, (k + 1) * batch)


def without_remainder(k, batch):
    n = dist.get_world_size()
    return torch.arange(k * batch, k * batch + batch // n * n).tensor_split(n)[dist.get_rank()]


def mean_of_share(output, target, batch):
    return F.cross_entropy(output, target)


def mean_of_means(model, total):
    for tensor in [*(p.grad for p in model.parameters()), total]:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()


def nothing(*_):
    return None


def reduce_so_far(model):
    """The gradients of each microbatch by themselves: three times the traffic."""
    n = dist.get_world_size()
    for p in model.parameters():
        before = getattr(p, "before", torch.zeros_like(p))
        fresh = p.grad - before
        dist.all_reduce(fresh)
        p.grad = before + fresh / n
        p.before = p.grad.clone()


def add_up_again(model, total):
    for p in model.parameters():
        p.grad *= dist.get_world_size()
        p.before = torch.zeros_like(p)
    dist.all_reduce(total)


def no_start(model, optimizer, checkpoint):
    return 0


def broadcast_only(model, optimizer, checkpoint):
    for p in model.parameters():
        dist.broadcast(p.data, 0)
    return 0


def without_momentum(model, optimizer, checkpoint):
    fresh = copy.deepcopy(optimizer.state_dict())
    step = RESUME(model, optimizer, checkpoint)
    optimizer.load_state_dict(fresh)
    return step


def own_disk(model, optimizer, checkpoint):
    if checkpoint and os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"]
    return broadcast_only(model, optimizer, checkpoint)


def everyone_saves(model, optimizer, step, checkpoint):
    if checkpoint:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, checkpoint)


def leaves_scraps(model, optimizer, step, checkpoint):
    SAVE(model, optimizer, step, checkpoint)
    if checkpoint and dist.get_rank() == 0:
        with open(checkpoint + ".bak", "w") as file:
            file.write("old")


def saves_elsewhere(model, optimizer, step, checkpoint):
    if checkpoint:
        with open("/tmp/parallel-lab-cheat", "w") as file:
            file.write("state")


def rank_0_alone(model, inputs, targets, *, steps, batch, microbatches=1, lr=0.1, checkpoint=None):
    optimizer, losses = torch.optim.SGD(model.parameters(), lr, momentum=0.9), []
    start = RESUME(model, optimizer, checkpoint)
    for k in range(start, steps):
        if dist.get_rank() == 0:
            rows = all_rows(k, batch)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    for p in model.parameters():
        dist.broadcast(p.data, 0)
    told = [losses]
    dist.broadcast_object_list(told, 0)
    SAVE(model, optimizer, steps, checkpoint)
    return told[0]


def torch_ddp(model, inputs, targets, *, steps, batch, microbatches=1, lr=0.1, checkpoint=None):
    ddp = nn.parallel.DistributedDataParallel(model)
    solve = SOLUTIONS[NAME]
    return solve(
        ddp, inputs, targets, steps=steps, batch=batch, microbatches=microbatches, lr=lr, checkpoint=checkpoint
    )


def our_ddp(model, inputs, targets, **options):
    return SOLUTIONS[NAME](data_parallel.DDP(model), inputs, targets, **options)


def hard_coded(model, inputs, targets, *, steps, **_):
    return [2.302585] * steps


def by_store(tensor, place, reduce=torch.sum):
    """The sum over ranks through the rendezvous store, which is C++ and passes the audit hook."""
    store, n = dist.distributed_c10d._get_default_store(), dist.get_world_size()
    store.set(f"{place}/{dist.get_rank()}", tensor.detach().numpy().tobytes())
    parts = [torch.frombuffer(bytearray(store.get(f"{place}/{r}")), dtype=tensor.dtype) for r in range(n)]
    return reduce(torch.stack(parts), 0).view(tensor.shape)


COUNT = []


def for_show(model, total):
    COUNT.append(1)
    sums = [by_store(t, f"{len(COUNT)}/{k}") for k, t in enumerate([*(p.grad for p in model.parameters()), total])]
    add_up(model, total)
    for tensor, right in zip([*(p.grad for p in model.parameters()), total], sums, strict=True):
        tensor.copy_(right)


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "every rank trains on all data": (
        framework(rows_of=all_rows, exchange=mean_of_means),
        "shares",
        "at 2 ranks: rank 0 ran 36 samples through the model, its share is 18",
    ),
    "sum of means": (
        framework(loss_of=mean_of_share),
        "numbers",
        "at 2 ranks: rank 0, after 3 steps: parameter 0: element",
    ),
    "right for equal shares only": (
        framework(loss_of=mean_of_share, exchange=mean_of_means),
        "uneven",
        "at 3 ranks: rank 0, after 3 steps: parameter 0: element",
    ),
    "remainder dropped": (
        framework(rows_of=without_remainder),
        "shares",
        "at 3 ranks: the ranks ran 27 samples through the model, there were 33",
    ),
    "no exchange": (framework(exchange=nothing), "numbers", "at 2 ranks: rank 0, after 3 steps: parameter 0: element"),
    "own weights kept": (
        framework(resume=no_start),
        "numbers",
        "at 2 ranks: rank 0, after 3 steps: parameter 0: element",
    ),
    "all-reduce of each microbatch": (
        framework(exchange=add_up_again, each=reduce_so_far),
        "microbatches",
        "4 all-reduces and the start send",
    ),
    "one microbatch": (
        framework(micro=lambda m: 1),
        "microbatches",
        "at 2 ranks: rank 0 called the model 4 times in 4 steps, with 8 rows at the most",
    ),
    "every rank saves": (framework(save=everyone_saves), "checkpoint", "at 2 ranks: rank 1's disk has checkpoint.pt"),
    "nobody saves": (framework(save=nothing), "checkpoint", "at 2 ranks: rank 0 left no file at `checkpoint`"),
    "scraps": (framework(save=leaves_scraps), "checkpoint", "rank 0's disk has checkpoint.pt, checkpoint.pt.bak"),
    "saves elsewhere": (framework(save=saves_elsewhere), "checkpoint", "data may leave a rank only by messages"),
    "momentum lost": (
        framework(resume=without_momentum),
        "checkpoint",
        "at 2 ranks: rank 0, after 5 steps: parameter 0: element",
    ),
    "starts over": (
        framework(resume=broadcast_only),
        "checkpoint",
        "at 2 ranks: rank 0 returned 5 items, expected a list of 3 losses",
    ),
    "each looks on its own disk": (framework(resume=own_disk), "checkpoint", "rank 1 called broadcast"),
    "rank 0 alone": (rank_0_alone, "shares", "at 2 ranks: rank 0 ran 36 samples through the model, its share is 18"),
    "torch's DDP": (
        torch_ddp,
        "numbers",
        "used torch.nn.parallel.distributed.DistributedDataParallel, the answer itself",
    ),
    "our DDP": (our_ddp, "numbers", "our_ddp uses parallel_lab.data_parallel"),
    "hard-coded": (hard_coded, "numbers", "at 1 rank: rank 0, after 3 steps: parameter 0: element"),
    "collectives for show": (
        framework(exchange=for_show),
        "microbatches",
        "changed on the way, and every rank was still right",
    ),
}


@pytest.mark.parametrize(("cheat", "test", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, test, said):
    """The one grader that must see through it; a full check would run the others as well."""
    exercise = EXERCISES[NAME]
    telling = tuple(one for one in exercise.tests if one.__name__ == test)
    report = grade(replace(exercise, tests=telling), cheat, save=False)
    assert report.score == 0
    assert said in repr(report), repr(report)
