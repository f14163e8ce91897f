"""`tree_broadcast`: every shortcut fails with its own message."""

import pytest
import torch.distributed as dist
from grading import assert_found_out, by_value, solutions
from neighbors import neighbors

by_value(__name__)
NAME = "tree_broadcast"
SOLUTION = solutions(NAME)


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
    """A tree with few messages per rank, which serves the leaf first: one round too many at 4 ranks."""
    n, rank, _, _ = neighbors()
    place, sends = (rank - root) % n, {0: (1, 2), 2: (3,), 3: (4, 5)}
    before = {to: place for place, to_all in sends.items() for to in to_all}
    if place:
        dist.recv(tensor, (before[place] + root) % n)
    for to in sends.get(place, ()):
        if to < n:
            dist.send(tensor, (to + root) % n)


def root_zero_only(tensor, root=0):
    SOLUTION[NAME](tensor, 0)


def broadcast_ready_made(tensor, root=0):
    dist.broadcast(tensor, root)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (star, 3, "at 4 ranks: rank 0 sent 3 messages, a tree sends at most 2"),
    (chain, 4, "at 4 ranks: the messages took 3 rounds, a binomial tree takes 2"),
    (nearest_last, 4, "at 4 ranks: the messages took 3 rounds"),
    (root_zero_only, 1, "at 2 ranks, root 1, shape \\(5,\\): rank 0: element"),
    (
        root_zero_only,
        1,
        "What came is the tensor of rank 0, and not that of the root, rank 1: does your code use `root`",
    ),
    (broadcast_ready_made, 0, "rank 0 called broadcast"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)
