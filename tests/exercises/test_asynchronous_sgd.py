"""`asynchronous_sgd`: workers that wait for each other, and staleness misreported, fail with their messages."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

by_value(__name__)
NAME = "asynchronous_sgd"
SOLUTION = solutions(NAME)


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


def never_pulls(weights, gradient, counts, lr):
    if dist.get_rank():
        return work(weights, gradient, counts, pull=False)
    weights, updates, arrived = weights.clone(), [], torch.empty_like(weights)
    for _ in range(sum(counts)):
        worker = dist.recv(arrived)
        weights -= lr * arrived
        updates.append((worker, len(updates)))
    return weights, updates


def reported(change):
    """The solution, with other updates reported than it made: `change(number, worker, staleness, counts)`."""

    def answer(weights, gradient, counts, lr):
        result = SOLUTION[NAME](weights, gradient, counts, lr)
        if result is None:
            return None
        return result[0], [change(number, *update, counts) for number, update in enumerate(result[1])]

    return answer


never_stale = reported(lambda number, worker, staleness, counts: (worker, 0))


def order_made_up(weights, gradient, counts, lr):
    """The first update is reported as the last: with two workers or more never the true order."""
    result = SOLUTION[NAME](weights, gradient, counts, lr)
    return result and (result[0], result[1][1:] + result[1][:1])


def divided_by_the_workers(weights, gradient, counts, lr):
    return SOLUTION[NAME](weights, gradient, counts, lr / max(1, len(counts) - 1) if len(counts) > 2 else lr)


def with_a_barrier(weights, gradient, counts, lr):
    dist.barrier()
    return SOLUTION[NAME](weights, gradient, counts, lr)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (in_turn, 3, "before rank 2 had finished its gradient 1, rank 1 finished 3; nothing keeps it from 6"),
    (
        never_pulls,
        1,
        "at 2 ranks, counts \\(0, 5\\): rank 1 computed its gradient 1 at weights without its own gradient 0",
    ),
    (never_stale, 4, "and 0 was reported"),
    (order_made_up, 0, "at weights that server 0 never had"),
    (divided_by_the_workers, 0, "at weights that server 0 never had"),
    (with_a_barrier, 0, "rank 0 called barrier"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def in_turn_and_never_stale(weights, gradient, counts, lr):
    result = in_turn(weights, gradient, counts, lr)
    return result and (result[0], [(worker, 0) for worker, _ in result[1]])


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (in_turn_and_never_stale, "before rank 2 had finished its gradient 1, rank 1 finished 3; nothing keeps it from 6"),
    (never_stale, "and 0 was reported"),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])
