"""`parameter_server`: shortcuts in the order of events, and ready-made answers, fail with their own messages."""

import importlib
import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_one_says
from server_parts import SERVE, SOLUTION, WORK, with_server
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import parameter_server as reference
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def never_pulling(size, gradient, servers, count):
    weights = torch.empty(size, dtype=torch.float64)
    slices = torch.tensor_split(weights, servers)
    for owner, one in enumerate(slices):
        dist.recv(one, owner)
    for batch in range(count):
        pushed = torch.tensor_split(gradient(weights, batch), servers)
        for push in [dist.isend(one, owner) for owner, one in enumerate(pushed)]:
            push.wait()


def never_answering(weights, servers, counts, bound, lr, momentum):
    velocity, arrived, updates = torch.zeros_like(weights), torch.empty_like(weights), []
    for rank in range(servers, len(counts)):
        dist.send(weights, rank)
    for _ in range(sum(counts)):
        updates.append(dist.recv(arrived))
        velocity.mul_(momentum).add_(arrived)
        weights.sub_(lr * velocity)
    return weights, updates


never_pulls = with_server(never_answering, never_pulling)


def ignoring_what_comes(size, gradient, servers, count):
    """Pulls for show: computes at the first weights for ever."""
    first = []

    def at_first(weights, batch):
        if not first:
            first.append(weights.clone())
        return gradient(first[0], batch)

    return WORK(size, at_first, servers, count)


pulls_for_show = with_server(SERVE, ignoring_what_comes)


def one_batch_for_ever(initial, size, gradient, servers, counts, bound, lr, momentum):
    def same(weights, batch):
        return gradient(weights, 0)

    return SOLUTION(initial, size, same, servers, counts, bound, lr, momentum)


def with_a_barrier(initial, size, gradient, servers, counts, bound, lr, momentum):
    dist.barrier()
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def all_reduced(initial, size, gradient, servers, counts, bound, lr, momentum):
    """The workers meet before each step, as long as all have batches."""
    workers = dist.new_group(list(range(servers, len(counts))))

    def meeting(weights, batch):
        if batch < min(counts[servers:]):
            dist.all_reduce(torch.ones(1), group=workers)
        return gradient(weights, batch)

    return SOLUTION(initial, size, meeting, servers, counts, bound, lr, momentum)


def servers_talk(initial, size, gradient, servers, counts, bound, lr, momentum):
    rank = dist.get_rank()
    if servers > 1 and rank < servers:
        dist.send(torch.ones(3), 1) if rank == 0 else dist.recv(torch.ones(3), 0)
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def order_made_up(initial, size, gradient, servers, counts, bound, lr, momentum):
    result = SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)
    return result and (result[0], sorted(result[1]))


def recorder_cleared(initial, size, gradient, servers, counts, bound, lr, momentum):
    result = SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)
    recorder().spans.clear()
    return result


def the_reference(initial, size, gradient, servers, counts, bound, lr, momentum):
    return reference.serve(initial, torch.optim.SGD, counts, lr=lr, momentum=momentum)


def the_reference_by_stealth(initial, size, gradient, servers, counts, bound, lr, momentum):
    if dist.get_rank() == 0:
        importlib.import_module(".".join(("parallel_lab", "parameter" + "_server")))
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def pytorchs_own(initial, size, gradient, servers, counts, bound, lr, momentum):
    DistributedDataParallel(torch.nn.Linear(1, 1))
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


CHEATS = {
    "never_pulls": (never_pulls, "rank 1 computed its gradient 1 at weights without its own gradient 0"),
    "pulls_for_show": (pulls_for_show, "rank 1 computed its gradient 1 at weights without its own gradient 0"),
    "one_batch_for_ever": (one_batch_for_ever, "rank 1 computed gradients of its batches 0, 0, 0, 0; expected 0 to 3"),
    "with_a_barrier": (with_a_barrier, "rank 0 called barrier"),
    "all_reduced": (all_reduced, "rank 1 called all_reduce"),
    "servers_talk": (servers_talk, "at 4 ranks: rank 0 sent rank 1 12 B, server to server"),
    "order_made_up": (order_made_up, "at weights that server 0 never had"),
    "recorder_cleared": (recorder_cleared, "computed gradients that are not in the trace"),
    "the_reference": (the_reference, "the_reference uses parallel_lab.parameter_server"),
    "the_reference_by_stealth": (the_reference_by_stealth, "rank 0 used parallel_lab.parameter_server, the answer"),
    "pytorchs_own": (pytorchs_own, "pytorchs_own uses torch.nn.parallel"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_fails_with_its_message(name):
    assert_one_says("parameter_server", *CHEATS[name])
