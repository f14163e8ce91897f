"""`ring_shift`, the exercise with the deadlock: every shortcut fails with its own message."""

import sys
import time

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_fails
from neighbors import neighbors

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def never_waited(tensor):
    n, _, right, left = neighbors()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    dist.isend(tensor, right)
    dist.recv(received, left)
    return received


PENDING = []


def kept_and_never_waited(tensor):
    n, _, right, left = neighbors()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    PENDING.append(dist.isend(tensor, right))
    dist.recv(received, left)
    return received


def asleep(tensor):
    n, rank, right, left = neighbors()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    time.sleep(0.05 * rank)
    dist.send(tensor, right)
    dist.recv(received, left)
    return received


def nothing_sent(tensor):
    return tensor.clone()


def one_rank_skips(tensor):
    n, rank, right, left = neighbors()
    received = tensor.clone()
    if rank != n - 1:
        dist.send(tensor, right)
    if rank != 0:
        dist.recv(received, left)
    return received


def by_all_gather(tensor):
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    return gathered[dist.get_rank() - 1]


CHEATS = [
    (never_waited, "isend"),  # the handle is gone: the message may be lost with it, or may arrive
    (kept_and_never_waited, "never waited for the isend to rank 1"),
    (asleep, "a circle: rank 0 waits for"),
    (nothing_sent, "at 2 ranks: rank 0: element"),
    (one_rank_skips, "at 2 ranks: rank 0: element"),
    (by_all_gather, "rank 0 called all_gather"),
]


@pytest.mark.parametrize(("cheat", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, said):
    assert_fails("ring_shift", cheat, said)
