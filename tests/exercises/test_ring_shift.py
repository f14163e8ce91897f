"""`ring_shift`: every shortcut fails with its own message, and the other way out passes."""

import time

import pytest
import torch
import torch.distributed as dist
from grading import assert_found_out, assert_passes, by_value, solutions
from neighbors import neighbors

by_value(__name__)
NAME = "ring_shift"
SOLUTION = solutions(NAME)


PENDING = []


def kept_and_never_waited(tensor):
    n, _, right, left = neighbors()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    PENDING.append(dist.isend(tensor, right))
    dist.recv(received, left)
    dist.barrier()  # a rank that ends first may take its message with it, and the other one hangs
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


def receives_first(tensor):
    n, _, right, left = neighbors()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    dist.recv(received, left)
    dist.send(tensor, right)
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


CHEATS = [  # (answer, the test that sees through it, what it says)
    (kept_and_never_waited, 0, "never waited for the isend to rank 1"),
    (asleep, 0, "a circle: rank 0 waits for"),
    (asleep, 0, "waits in its send until the next one receives: who is left to receive\\?"),
    (receives_first, 0, "waits for a message that the next one sends after its own receive: who is left to send\\?"),
    (nothing_sent, 0, "at 2 ranks: rank 0: element"),
    (one_rank_skips, 0, "at 2 ranks: rank 0: element"),
    (by_all_gather, 2, "rank 0 called all_gather"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def even_and_odd(tensor):
    """Not a cheat: the textbook's other way out."""
    n, rank, right, left = neighbors()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    for sending in (rank % 2 == 0, rank % 2 == 1):
        dist.send(tensor, right) if sending else dist.recv(received, left)
    return received


def test_another_right_answer_passes():
    assert_passes(NAME, even_and_odd)
