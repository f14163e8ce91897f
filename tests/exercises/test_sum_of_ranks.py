"""`sum_of_ranks`: every shortcut fails with its own message."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_found_out, by_value, solutions

by_value(__name__)
NAME = "sum_of_ranks"
SOLUTION = solutions(NAME)


def only_its_own(number):
    return number.clone()


def reduce_then_broadcast(number):
    total = number.clone()
    dist.reduce(total, dst=0)
    dist.broadcast(total, src=0)
    return total


def gather_everything(number):
    numbers = [torch.empty_like(number) for _ in range(dist.get_world_size())]
    dist.all_gather(numbers, number)
    return torch.stack(numbers).sum()


def averaged(number):
    return SOLUTION[NAME](number) / dist.get_world_size()


def in_place(number):
    dist.all_reduce(number)
    return number


def on_some_ranks(number):
    return SOLUTION[NAME](number) if dist.get_rank() else number.clone()


CHEATS = [  # (answer, the test that sees through it, what it says)
    (only_its_own, 1, "at 2 ranks: rank 0 called nothing; expected all_reduce"),
    (reduce_then_broadcast, 1, "at 2 ranks: rank 0 called reduce, broadcast; expected all_reduce"),
    (gather_everything, 1, "rank 0 called all_gather; expected all_reduce"),
    (averaged, 0, "at 2 ranks: rank 0: element 0 is"),
    (in_place, 0, "at 2 ranks: rank 0 changed its input"),
    (on_some_ranks, 0, "rank 0 returned; rank 1 waits for it in all_reduce, which it never joined"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)
