"""`local_sgd`: every shortcut fails with its own message."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_found_out, by_value, solutions

by_value(__name__)
NAME = "local_sgd"
SOLUTION = solutions(NAME)


def locally(weights, gradient, counts, every, lr, average):
    """Local SGD with `average(weights, steps)` in place of the right one."""
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        average(weights, steps)
    return weights


def every_step(weights, gradient, counts, every, lr):
    return SOLUTION[NAME](weights, gradient, counts, 1, lr)


def never(weights, gradient, counts, every, lr):
    return locally(weights, gradient, counts, every, lr, lambda weights, steps: None)


def all_alike(weights, gradient, counts, every, lr):
    def average(weights, steps):
        dist.all_reduce(weights)
        weights /= len(steps)

    return locally(weights, gradient, counts, every, lr, average)


def meeting_in_every_step(weights, gradient, counts, every, lr):
    def meet(weights, batch):
        if batch < min(counts):
            dist.barrier()
        return gradient(weights, batch)

    return SOLUTION[NAME](weights, meet, counts, every, lr)


def gathered(weights, gradient, counts, every, lr):
    def average(weights, steps):
        every_rank = [torch.empty_like(weights) for _ in steps]
        dist.all_gather(every_rank, weights)
        weights.copy_(sum(one * step for one, step in zip(every_rank, steps, strict=True)) / sum(steps))

    return locally(weights, gradient, counts, every, lr, average)


def goes_home_early(weights, gradient, counts, every, lr):
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, counts[rank], every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        averaged(weights, steps)
    return weights


def averaged(weights, steps):
    weights *= steps[dist.get_rank()] / sum(steps)
    dist.all_reduce(weights)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (every_step, 0, "at 2 ranks, counts \\(6, 6\\), every 3: the weights were averaged after every step"),
    (never, 0, "every 3: the weights were never averaged"),
    (all_alike, 1, "at 3 ranks, counts \\(7, 5, 2\\), every 3: each rank counted alike"),
    (meeting_in_every_step, 2, "called barrier between its gradients 0 and 1, within a round"),
    (gathered, 3, "rank 0 sent 2,880 B, 3 averages by a ring send 1,920 B"),
    (goes_home_early, 1, "the ranks did not finish"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)
