"""`all_to_all`: every shortcut fails with its own message."""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_fails, solutions
from neighbors import neighbors, swap

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SOLUTIONS = solutions("02_collectives")


def gather_everything(blocks):
    n, rank, right, left = neighbors()
    held = {rank: torch.stack(blocks)}
    for k in range(n - 1):
        outgoing, incoming = (rank - k) % n, (rank - k - 1) % n
        held[incoming] = swap(held[outgoing], right, torch.empty_like(held[outgoing]), left)
    return [held[source][rank].clone() for source in range(n)]


def in_rank_order(blocks):
    n, rank, _, _ = neighbors()
    received = [torch.empty_like(block) for block in blocks]
    received[rank].copy_(blocks[rank])
    for other in range(n):
        if other != rank:
            dist.send(blocks[other], other)
            dist.recv(received[other], other)
    return received


def all_to_all_ready_made(blocks):
    gathered = [torch.empty_like(torch.stack(blocks)) for _ in blocks]
    dist.all_gather(gathered, torch.stack(blocks))
    return [one[dist.get_rank()].clone() for one in gathered]


def own_block_forgotten(blocks):
    received = SOLUTIONS["all_to_all"](blocks)
    received[dist.get_rank()].zero_()
    return received


CHEATS = [
    (gather_everything, "at 2 ranks: rank 0 sent 1,920 B, an all-to-all sends 960 B"),
    (in_rank_order, "a circle: rank 0 waits for"),
    (all_to_all_ready_made, "rank 0 called all_gather"),
    (own_block_forgotten, "at 1 rank: rank 0, item 0,: element"),
]


@pytest.mark.parametrize(("cheat", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, said):
    assert_fails("all_to_all", cheat, said)
