"""`asynchronous_sgd`: messages besides pushes and pulls, and ready-made answers, fail with their own messages."""

import importlib
import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_fails, assert_one_says, solutions
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import synchronization
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ASYNCHRONOUS = solutions("04_gradient_synchronization")["asynchronous_sgd"]


def with_a_barrier(weights, gradient, counts, lr):
    dist.barrier()
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def with_an_all_reduce_of_one_number(weights, gradient, counts, lr):
    workers = dist.new_group(list(range(1, len(counts))))

    def meeting(weights, batch):
        if batch < min(counts[1:]):
            dist.all_reduce(torch.ones(1), group=workers)
        return gradient(weights, batch)

    return ASYNCHRONOUS(weights, meeting, counts, lr)


def with_a_token_between_workers(weights, gradient, counts, lr):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    if rank and last > 1:
        token = torch.ones(1)
        works = [dist.isend(token, rank % last + 1), dist.irecv(torch.ones(1), (rank - 2) % last + 1)]
        for one in works:
            one.wait()
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def tells_everyone(weights, gradient, counts, lr):
    """Each push is answered to all workers; who is meant stands in the message."""
    rank, workers, total = dist.get_rank(), range(1, len(counts)), sum(counts)
    if rank:
        box, seen = torch.cat([weights, weights[:1]]), 0
        works = [torch.empty_like(box) for _ in range(total)]
        pending = [dist.irecv(one, 0) for one in works]
        for batch in range(counts[rank]):
            dist.send(gradient(box[:-1].clone(), batch), 0)
            while True:
                pending[seen].wait()
                box, seen = works[seen], seen + 1
                if int(box[-1]) == rank:
                    break
        for late in pending[seen:]:
            late.wait()
        return None
    weights, arrived, updates, sent_at, sent = weights.clone(), torch.empty_like(weights), [], [0] * len(counts), []
    for _ in range(total):
        worker = dist.recv(arrived)
        weights -= lr * arrived
        updates.append((worker, len(updates) - sent_at[worker]))
        sent_at[worker] = len(updates)
        box = torch.cat([weights, torch.tensor([float(worker)], dtype=weights.dtype)])
        sent += [(dist.isend(box, other), box) for other in workers]
    for one, _ in sent:
        one.wait()
    return weights, updates


def own_group(weights, gradient, counts, lr):
    group = dist.new_group(backend="gloo")
    inner_send, inner_recv = dist.send, dist.recv
    dist.send = lambda tensor, to: inner_send(tensor, to, group=group)
    dist.recv = lambda tensor, source=None: inner_recv(tensor, source, group=group)
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def alone(weights, gradient, counts, lr):
    """The server computes everything itself."""
    weights, updates = weights.clone(), []
    if dist.get_rank() == 0:
        for worker, count in enumerate(counts):
            for batch in range(count):
                weights -= lr * gradient(weights, batch)
                updates.append((worker, 0))
    return weights, updates


def the_reference(weights, gradient, counts, lr):
    return synchronization.train(synchronization.Asynchronous(), weights, gradient, counts, lr)


def the_reference_by_stealth(weights, gradient, counts, lr):
    if dist.get_rank() == 0:
        importlib.import_module(".".join(("parallel_lab", "synchron" + "ization")))
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def pytorchs_own(weights, gradient, counts, lr):
    DistributedDataParallel(torch.nn.Linear(1, 1))
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def recorder_cleared(weights, gradient, counts, lr):
    result = ASYNCHRONOUS(weights, gradient, counts, lr)
    recorder().spans.clear()
    return result


CHEATS = [
    (with_a_barrier, "rank 0 called barrier"),
    (with_an_all_reduce_of_one_number, "rank 1 called all_reduce"),
    (with_a_token_between_workers, "rank 1 sent rank 2 4 B, worker to worker"),
    (tells_everyone, "the weights for its 3 later gradients are 1,536 B"),
    (own_group, "at 2 ranks: rank 1 sent rank 0 0 B by messages; 5 gradients are 2,560 B"),
    (alone, "rank 0 has 0 batches, and was asked for number 0"),
    (the_reference, "the_reference uses parallel_lab.synchronization"),
    (the_reference_by_stealth, "at 2 ranks: rank 0 used parallel_lab."),
    (pytorchs_own, "pytorchs_own uses torch.nn.parallel"),
    (recorder_cleared, "rank 1 sent rank 0 0 B by messages"),
]


@pytest.mark.parametrize(("cheat", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, said):
    assert_one_says("asynchronous_sgd", cheat, said)


def test_a_cheat_does_not_pass():
    assert_fails("asynchronous_sgd", with_a_barrier, "rank 0 called barrier")
