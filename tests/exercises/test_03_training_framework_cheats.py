"""`training_framework`: shortcuts in shares, numbers and traffic fail with their own messages."""

import sys

import cloudpickle
import pytest
import through_store
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_found_out
from torch import nn
from training_loop import RESUME, SAVE, SOLUTIONS, add_up, framework, nothing

from parallel_lab import data_parallel

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "training_framework"


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


COUNT = []


def for_show(model, total):
    COUNT.append(1)
    sums = [
        through_store.add_up(t, f"{len(COUNT)}/{k}")
        for k, t in enumerate([*(p.grad for p in model.parameters()), total])
    ]
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


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
