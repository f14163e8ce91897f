"""`local_sgd`: every shortcut fails with its own message."""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_fails, assert_one_says, solutions
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import synchronization

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LOCAL = solutions("04_gradient_synchronization")["local_sgd"]


def locally(weights, gradient, counts, every, lr, average):
    """Local SGD with `average(weights, steps)` in place of the right one."""
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        average(weights, steps)
    return weights


def averaged(weights, steps):
    weights *= steps[dist.get_rank()] / sum(steps)
    dist.all_reduce(weights)


def every_step(weights, gradient, counts, every, lr):
    return LOCAL(weights, gradient, counts, 1, lr)


def never(weights, gradient, counts, every, lr):
    return locally(weights, gradient, counts, every, lr, lambda weights, steps: None)


def only_at_the_end(weights, gradient, counts, every, lr):
    return LOCAL(weights, gradient, counts, max(counts), lr)


def gradients_averaged(weights, gradient, counts, every, lr):
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank] - 1):
            weights -= lr * gradient(weights, batch)
        last = gradient(weights, first + steps[rank] - 1) if steps[rank] else torch.zeros_like(weights)
        dist.all_reduce(last)
        weights -= lr * last / sum(step > 0 for step in steps)
    return weights


def all_alike(weights, gradient, counts, every, lr):
    def average(weights, steps):
        dist.all_reduce(weights)
        weights /= len(steps)

    return locally(weights, gradient, counts, every, lr, average)


def summed(weights, gradient, counts, every, lr):
    return locally(weights, gradient, counts, every, lr, lambda weights, steps: dist.all_reduce(weights))


def meeting_in_every_step(weights, gradient, counts, every, lr):
    def meet(weights, batch):
        if batch < min(counts):
            dist.barrier()
        return gradient(weights, batch)

    return LOCAL(weights, meet, counts, every, lr)


def first_ranks_weights(weights, gradient, counts, every, lr):
    return locally(weights, gradient, counts, every, lr, lambda weights, steps: dist.broadcast(weights, 0))


def gathered(weights, gradient, counts, every, lr):
    def average(weights, steps):
        every_rank = [torch.empty_like(weights) for _ in steps]
        dist.all_gather(every_rank, weights)
        weights.copy_(sum(one * step for one, step in zip(every_rank, steps, strict=True)) / sum(steps))

    return locally(weights, gradient, counts, every, lr, average)


def averaged_twice(weights, gradient, counts, every, lr):
    def average(weights, steps):
        averaged(weights, steps)
        averaged(weights, [1] * len(steps))

    return locally(weights, gradient, counts, every, lr, average)


def last_round_left_out(weights, gradient, counts, every, lr):
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        if first + every <= max(counts):
            averaged(weights, steps)
    return weights


def goes_home_early(weights, gradient, counts, every, lr):
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, counts[rank], every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        averaged(weights, steps)
    return weights


def group_of_their_own(weights, gradient, counts, every, lr):
    group = dist.new_group(backend="gloo")

    def average(weights, steps):
        weights *= steps[dist.get_rank()] / sum(steps)
        dist.all_reduce(weights, group=group)

    return locally(weights, gradient, counts, every, lr, average)


def one_batch_again(weights, gradient, counts, every, lr):
    return LOCAL(weights, lambda weights, batch: gradient(weights, 0), counts, every, lr)


def the_local_reference(weights, gradient, counts, every, lr):
    return synchronization.LocalSGD(weights, gradient, counts, every=every, lr=lr)


def parallel_lab_ddp(weights, gradient, counts, every, lr):
    DistributedDataParallel(torch.nn.Linear(1, 1))
    return LOCAL(weights, gradient, counts, every, lr)


CHEATS = [
    (every_step, "at 2 ranks, [6, 6] batches, every 3: the weights were averaged after every step"),
    (never, "at 2 ranks, [6, 6] batches, every 3: the weights were never averaged"),
    (only_at_the_end, "at 2 ranks, [6, 6] batches, every 3: the weights were averaged only at the end"),
    (gradients_averaged, "at 2 ranks, [6, 6] batches, every 3: the gradients were averaged, not the weights"),
    (all_alike, "at 3 ranks, [7, 5, 2] batches, every 3: each rank counted alike"),
    (summed, "rank 0 computed its gradient 3 at other weights than local SGD has there"),
    (meeting_in_every_step, "called barrier between its gradients 0 and 1, within a round"),
    (first_ranks_weights, "rank 0 computed its gradient 3 at other weights than local SGD has there"),
    (gathered, "at 3 ranks: rank 0 sent 2,880 B, 3 averages by a ring send"),
    (averaged_twice, "at 2 ranks: rank 0 sent 1,920 B, 2 averages by a ring send"),
    (last_round_left_out, "at 2 ranks: rank 1: element"),
    (goes_home_early, "the ranks did not finish"),
    (group_of_their_own, "at 2 ranks: rank 0 sent 0 B by messages; for 2 averages a rank must send 960 B"),
    (one_batch_again, "rank 0 computed gradients of its batches 0, 0, 0, 0, 0, 0; expected 0 to 5, each once"),
    (the_local_reference, "the_local_reference uses parallel_lab.synchronization"),
    (parallel_lab_ddp, "parallel_lab_ddp uses torch.nn.parallel"),
]


@pytest.mark.parametrize(("cheat", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, said):
    assert_one_says("local_sgd", cheat, said)


def test_a_cheat_does_not_pass():
    assert_fails("local_sgd", every_step, dict(CHEATS)[every_step])
