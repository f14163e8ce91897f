"""`tree_broadcast`: every shortcut fails with its own message."""

import sys

import cloudpickle
import pytest
import torch.distributed as dist
from grading import assert_fails, solutions
from neighbors import neighbors

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SOLUTIONS = solutions("02_collectives")


def star(tensor, root=0):
    n, rank, _, _ = neighbors()
    if rank != root:
        dist.recv(tensor, root)
        return
    for other in range(n):
        if other != root:
            dist.send(tensor, other)


def chain(tensor, root=0):
    _, rank, right, left = neighbors()
    if rank != root:
        dist.recv(tensor, left)
    if right != root:
        dist.send(tensor, right)


def nearest_last(tensor, root=0):
    """A tree with few messages a rank, which serves the leaf first: one round too many at 4 ranks."""
    n, rank, _, _ = neighbors()
    place, sends = (rank - root) % n, {0: (1, 2), 2: (3,), 3: (4, 5)}
    before = {to: place for place, to_all in sends.items() for to in to_all}
    if place:
        dist.recv(tensor, (before[place] + root) % n)
    for to in sends.get(place, ()):
        if to < n:
            dist.send(tensor, (to + root) % n)


def root_zero_only(tensor, root=0):
    SOLUTIONS["tree_broadcast"](tensor, 0)


def broadcast_ready_made(tensor, root=0):
    dist.broadcast(tensor, root)


CHEATS = [
    (star, "at 4 ranks: rank 0 sent 3 messages, a tree sends at most 2"),
    (chain, "at 4 ranks: the messages took 3 rounds, a binomial tree takes 2"),
    (nearest_last, "at 4 ranks: the messages took 3 rounds, a binomial tree takes 2"),
    (root_zero_only, "at 2 ranks, root 1: rank 0's tensor: element"),
    (broadcast_ready_made, "rank 0 called broadcast"),
]


@pytest.mark.parametrize(("cheat", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, said):
    assert_fails("tree_broadcast", cheat, said)
