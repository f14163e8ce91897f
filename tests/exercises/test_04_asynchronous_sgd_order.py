"""`asynchronous_sgd`: workers that wait for each other, and staleness misreported, fail with their messages."""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_one_says, solutions

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ASYNCHRONOUS = solutions("04_gradient_synchronization")["asynchronous_sgd"]


def work(weights, gradient, counts, pull=True):
    """The worker of the solution."""
    rank, weights = dist.get_rank(), weights.clone()
    for batch in range(counts[rank]):
        dist.send(gradient(weights, batch), 0)
        if pull and batch + 1 < counts[rank]:
            dist.recv(weights, 0)


def next_in(order, arrived, left):
    """A server that listens to the workers in turn."""
    worker = next(rank for rank in order if left[rank])
    order.append(order.pop(order.index(worker)))
    dist.recv(arrived, worker)
    return worker


def in_turn(weights, gradient, counts, lr):
    if dist.get_rank():
        return work(weights, gradient, counts)
    weights, left, sent_at, updates = weights.clone(), list(counts), [0] * len(counts), []
    order, arrived = list(range(1, len(counts))), torch.empty_like(weights)
    while sum(left):
        worker = next_in(order, arrived, left)
        weights -= lr * arrived
        updates.append((worker, len(updates) - sent_at[worker]))
        left[worker] -= 1
        if left[worker]:
            sent_at[worker] = len(updates)
            dist.send(weights, worker)
    return weights, updates


def synchronous(weights, gradient, counts, lr):
    """Waits for a gradient of every worker, applies them, answers all; the staleness is reported as it is."""
    if dist.get_rank():
        return work(weights, gradient, counts)
    weights, updates, arrived = weights.clone(), [], torch.empty_like(weights)
    for batch in range(max(counts)):
        workers = [rank for rank, count in enumerate(counts) if batch < count]
        for place, _ in enumerate(workers):
            worker = dist.recv(arrived)
            weights -= lr * arrived
            updates.append((worker, place))
        for worker in workers:
            if batch + 1 < counts[worker]:
                dist.send(weights, worker)
    return weights, updates


def never_pulls(weights, gradient, counts, lr):
    if dist.get_rank():
        return work(weights, gradient, counts, pull=False)
    weights, updates, arrived = weights.clone(), [], torch.empty_like(weights)
    for _ in range(sum(counts)):
        worker = dist.recv(arrived)
        weights -= lr * arrived
        updates.append((worker, len(updates)))
    return weights, updates


def two_gradients_at_once(weights, gradient, counts, lr):
    """Old weights for every gradient: the server answers with a copy that it made at the start."""
    if dist.get_rank():
        return work(weights, gradient, counts)
    start, arrived, left, updates = weights.clone(), torch.empty_like(weights), list(counts), []
    weights = weights.clone()
    while sum(left):
        worker = dist.recv(arrived)
        weights -= lr * arrived
        updates.append((worker, len(updates)))
        left[worker] -= 1
        if left[worker]:
            dist.send(start, worker)
    return weights, updates


def reported(change):
    """The solution, with other updates reported than it made: `change(number, worker, staleness, counts)`."""

    def answer(weights, gradient, counts, lr):
        result = ASYNCHRONOUS(weights, gradient, counts, lr)
        if result is None:
            return None
        return result[0], [change(number, *update, counts) for number, update in enumerate(result[1])]

    return answer


never_stale = reported(lambda number, worker, staleness, counts: (worker, 0))


as_many_as_others = reported(lambda number, worker, staleness, counts: (worker, len(counts) - 2))


counted_from_the_push = reported(lambda number, worker, staleness, counts: (worker, max(0, staleness - 1)))


staleness_missing = reported(lambda number, worker, staleness, counts: worker)


def order_made_up(weights, gradient, counts, lr):
    """The first update is reported as the last: with two workers or more never the true order."""
    result = ASYNCHRONOUS(weights, gradient, counts, lr)
    return result and (result[0], result[1][1:] + result[1][:1])


def one_batch_for_ever(weights, gradient, counts, lr):
    return ASYNCHRONOUS(weights, lambda weights, batch: gradient(weights, 0), counts, lr)


def divided_by_the_workers(weights, gradient, counts, lr):
    return ASYNCHRONOUS(weights, gradient, counts, lr / max(1, len(counts) - 1) if len(counts) > 2 else lr)


CHEATS = {
    "in_turn": (
        in_turn,
        "before rank 2 had finished its gradient 1, rank 1 finished 3 of its 6; nothing forced it to wait",
    ),
    "synchronous": (
        synchronous,
        "before rank 2 had finished its gradient 1, rank 1 finished 2 of its 6; nothing forced it to wait",
    ),
    "never_pulls": (never_pulls, "at 2 ranks: rank 1 computed its gradient 1 at weights without its own gradient 0"),
    "two_gradients_at_once": (
        two_gradients_at_once,
        "rank 1 computed its gradient 1 at weights without its own gradient 0",
    ),
    "never_stale": (never_stale, "and 0 was reported"),
    "as_many_as_others": (as_many_as_others, "was reported"),
    "counted_from_the_push": (counted_from_the_push, "was reported"),
    "staleness_missing": (staleness_missing, "rank 0's updates are a list of 5, expected pairs (worker, staleness)"),
    "order_made_up": (order_made_up, "at weights that the server never had"),
    "one_batch_for_ever": (
        one_batch_for_ever,
        "rank 1 computed gradients of its batches 0, 0, 0, 0, 0; expected 0 to 4, each once",
    ),
    "divided_by_the_workers": (divided_by_the_workers, "at weights that the server never had"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_fails_with_its_message(name):
    assert_one_says("asynchronous_sgd", *CHEATS[name])
