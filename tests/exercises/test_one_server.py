"""`one_server`: a server without momentum, or for whose answer the wrong ones wait, fails with its own message."""

import threading

import pytest
import torch
import torch.distributed as dist
from grading import assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "one_server"


def worker(size, gradient, count, pulls=lambda batch: True):
    weights = torch.empty(size, dtype=torch.float64)
    for batch in range(count):
        if pulls(batch):
            dist.recv(weights, 0)
        dist.send(gradient(weights, batch), 0)


class Server:
    """The weights, and what a push does to them."""

    def __init__(self, weights, counts, lr, momentum):
        self.weights, self.velocity, self.left = weights, torch.zeros_like(weights), list(counts)
        self.lr, self.momentum, self.updates = lr, momentum, []

    def push(self, gradient, rank):
        self.velocity.mul_(self.momentum).add_(gradient)
        self.weights.sub_(self.lr * self.velocity)
        self.updates.append(rank)
        self.left[rank] -= 1


def built(serve, pulls=lambda batch: True, momentum=lambda given: given):
    """An answer whose server does `serve(server)` after the first pull of each worker."""

    def answer(initial, size, gradient, counts, lr, momentum_given):
        rank = dist.get_rank()
        if rank:
            return worker(size, gradient, counts[rank], pulls)
        server = Server(initial(0, size), counts, lr, momentum(momentum_given))
        for other, count in enumerate(counts):
            if count:
                dist.send(server.weights, other)
        serve(server)
        return server.weights, server.updates

    return answer


def whoever_comes(server):
    arrived = torch.empty_like(server.weights)
    while sum(server.left):
        rank = dist.recv(arrived)
        server.push(arrived, rank)
        if server.left[rank]:
            dist.send(server.weights, rank)


def in_turn(server):
    arrived, order = torch.empty_like(server.weights), [rank for rank, count in enumerate(server.left) if count]
    while order:
        rank = order.pop(0)
        dist.recv(arrived, rank)
        server.push(arrived, rank)
        if server.left[rank]:
            dist.send(server.weights, rank)
            order.append(rank)


def all_together(server):
    """Waits for everybody who has batches left, as synchronous training does, and answers then."""
    arrived = torch.empty_like(server.weights)
    while busy := [rank for rank, count in enumerate(server.left) if count]:
        for rank in busy:
            dist.recv(arrived, rank)
            server.push(arrived, rank)
        for rank in busy:
            if server.left[rank]:
                dist.send(server.weights, rank)


def never_answers(server):
    arrived = torch.empty_like(server.weights)
    while sum(server.left):
        server.push(arrived, dist.recv(arrived))


def a_thread_per_worker(server):
    lock = threading.Lock()

    def serve(rank):
        arrived = torch.empty_like(server.weights)
        while server.left[rank]:
            dist.recv(arrived, rank)
            with lock:
                server.push(arrived, rank)
                weights = server.weights.clone()
            if server.left[rank]:
                dist.send(weights, rank)

    threads = [threading.Thread(target=serve, args=(rank,)) for rank, count in enumerate(server.left) if count]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


CHEATS = [  # (answer, the test that sees through it, what it says)
    (built(whoever_comes, momentum=lambda given: 0.0), 0, "at weights that server 0 never had"),
    (built(never_answers, pulls=lambda batch: batch == 0), 1, "at weights without its own gradient 0"),
    (built(in_turn), 2, "before rank 2 had finished its gradient 1, rank 1 finished [23]; nothing keeps it from 6"),
    (
        built(all_together),
        2,
        "before rank 2 had finished its gradient 1, rank 1 finished [23]; nothing keeps it from 6",
    ),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_another_right_answer_passes():
    assert_passes(NAME, built(a_thread_per_worker))
