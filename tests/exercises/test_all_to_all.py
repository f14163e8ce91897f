"""`all_to_all`: every shortcut fails with its own message."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_found_out, by_value, solutions
from neighbors import neighbors, swap

by_value(__name__)
NAME = "all_to_all"
SOLUTION = solutions(NAME)


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
    received = SOLUTION[NAME](blocks)
    received[dist.get_rank()].zero_()
    return received


def own_block_to_everybody(blocks):
    n, rank, _, _ = neighbors()
    received = [torch.empty_like(block) for block in blocks]
    received[rank].copy_(blocks[rank])
    for k in range(1, n):
        to, source = (rank + k) % n, (rank - k) % n
        swap(blocks[rank], to, received[source], source)
    return received


def in_another_order(blocks):
    return SOLUTION[NAME](blocks)[::-1]


CHEATS = [  # (answer, the test that sees through it, what it says)
    (gather_everything, 3, "at 2 ranks: rank 0 sent 1,920 B, an all-to-all sends 960 B"),
    (in_rank_order, 0, "a circle: rank 0 waits for"),
    (all_to_all_ready_made, 0, "rank 0 called all_gather"),
    (
        own_block_to_everybody,
        0,
        "at 2 ranks: rank 0: item 1 is the block that rank 1 had for itself, .*\n +Do you send your own",
    ),
    (in_another_order, 0, "rank 0, item 0: element .*\n +Which of your blocks does rank i want"),
    (
        own_block_forgotten,
        0,
        "at 1 rank: rank 0: item 0 is not the block that this rank has for itself\n +A rank's block",
    ),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)
