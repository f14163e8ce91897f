"""`parameter_server`: servers with another bound or step, or more than their slice, fail with their messages."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

by_value(__name__)
NAME = "parameter_server"
SOLUTION = solutions(NAME)


def bounds(size, servers, rank):
    """Where the slice of server `rank` begins and ends."""
    part = torch.tensor_split(torch.arange(size), servers)[rank]
    return int(part[0]), int(part[-1]) + 1


def with_server(serve, work=SOLUTION["work"]):
    """An answer that is the solution's but for `serve` or `work`."""

    def answer(initial, size, gradient, servers, counts, bound, lr, momentum):
        rank = dist.get_rank()
        if rank >= servers:
            return work(size, gradient, servers, counts[rank])
        weights = initial(*bounds(size, servers, rank))
        return serve(weights, servers, counts, bound, lr, momentum)

    return answer


def server(may_go, momentum_here=True, step=lambda lr, counts, servers: lr):
    """A server that answers a waiting worker if `may_go(clocks, counts, worker, bound)`."""

    def serve(weights, servers, counts, bound, lr, momentum):
        velocity, arrived, updates = torch.zeros_like(weights), torch.empty_like(weights), []
        clock, waiting = [0] * len(counts), set(range(servers, len(counts)))
        while any(clock[rank] < count for rank, count in enumerate(counts)):
            for rank in sorted(waiting):
                if may_go(clock, counts, rank, bound):
                    dist.send(weights, rank)
                    waiting.remove(rank)
            worker = dist.recv(arrived)
            velocity.mul_(momentum if momentum_here else 0).add_(arrived)
            weights.sub_(step(lr, counts, servers) * velocity)
            updates.append(worker)
            clock[worker] += 1
            if clock[worker] < counts[worker]:
                waiting.add(worker)
        return weights, updates

    return with_server(serve)


def busy(clock, counts):
    return [clock[rank] for rank, count in enumerate(counts) if clock[rank] < count]


ignores_the_bound = server(lambda clock, counts, worker, bound: True)


always_in_step = server(lambda clock, counts, worker, bound: clock[worker] <= min(busy(clock, counts)))


without_momentum = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= min(busy(clock, counts)), momentum_here=False
)


def all_on_every_server(initial, size, gradient, servers, counts, bound, lr, momentum):
    rank = dist.get_rank()
    if rank >= servers:
        return SOLUTION["work"](size, gradient, servers, counts[rank])
    first, last = bounds(size, servers, rank)
    return SOLUTION["serve"](initial(0, size)[first:last], servers, counts, bound, lr, momentum)


def keeps_every_push(weights, servers, counts, bound, lr, momentum):
    kept, recv = [], dist.recv

    def keeping(tensor, source=None):
        worker = recv(tensor, source)
        kept.append(tensor.clone())
        return worker

    dist.recv = keeping
    return SOLUTION["serve"](weights, servers, counts, bound, lr, momentum)


all_pushes_kept = with_server(keeps_every_push)


def one_server(initial, size, gradient, servers, counts, bound, lr, momentum):
    rank = dist.get_rank()
    if rank == 0:
        return SOLUTION["serve"](initial(0, size), 1, counts, float("inf"), lr, momentum)
    weights = torch.empty(size, dtype=torch.float64)
    for batch in range(counts[rank]):
        dist.recv(weights, 0)
        dist.send(gradient(weights, batch), 0)
    return None


CHEATS = [  # (answer, the test that sees through it, what it says)
    (ignores_the_bound, 4, "bound 0: before rank 1 had finished its gradient 1, rank [23] had begun"),
    (
        always_in_step,
        4,
        "bound 2: before rank 3 had finished its gradient 1, rank 2 finished 2; nothing keeps it from 4",
    ),
    (without_momentum, 0, "at weights that server 0 never had"),
    (all_on_every_server, 1, "rank 0, taken slice 0: got \\[0, 1001\\], expected \\[0, 501\\]"),
    (all_pushes_kept, 1, "are plenty for its slice"),
    (one_server, 0, r"servers 2, .*: rank 0: got .* of shape \(1001,\), expected .* of shape \(501,\)"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    said = "bound 0: before rank 1 had finished its gradient 1, rank [23] had begun"
    assert_ends_a_step(NAME, 1, ignores_the_bound, said)
