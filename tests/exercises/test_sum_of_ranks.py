"""`sum_of_ranks`: every shortcut fails with its own message."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_found_out, by_value, solutions, stubs

from parallel_lab.course.checks import check

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


def reduced_to_one(number):
    total = number.clone()
    dist.reduce(total, dst=0)
    return total


def averaged(number):
    return SOLUTION[NAME](number) / dist.get_world_size()


def largest(number):
    total = number.clone()
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    return total


def what_all_reduce_returns(number):
    total = number.clone()
    return dist.all_reduce(total)


def never_waited_for(number):
    total = number.clone()
    dist.all_reduce(total, async_op=True)
    return total


def never_returned(number):
    pass


def copy_from_before(number):
    before = number.clone()
    dist.all_reduce(number)
    return before


def argument_in_place_of_the_sum(number):
    total = number.clone()
    dist.all_reduce(total)
    return number


def in_place(number):
    dist.all_reduce(number)
    return number


def on_some_ranks(number):
    return SOLUTION[NAME](number) if dist.get_rank() else number.clone()


CHEATS = [  # (answer, the test that sees through it, what it says)
    (only_its_own, 1, "at 2 ranks: rank 0 called nothing; expected one collective that leaves the sum on every rank"),
    (only_its_own, 0, "You return your own input, and nothing came from another rank. Each rank must get the sum"),
    (reduce_then_broadcast, 1, "at 2 ranks: rank 0 called reduce, broadcast; expected one collective"),
    (gather_everything, 1, "rank 0 called all_gather; expected one collective"),
    (reduced_to_one, 0, "at 2 ranks: rank 1: element 0 is .*\n.*On which ranks does reduce leave its result"),
    (reduced_to_one, 1, "at 2 ranks: rank 0 called reduce; expected one collective that leaves the sum"),
    (averaged, 0, "at 2 ranks: rank 0: element 0 is .*\n.*That is the mean of .* divided by the number of ranks"),
    (largest, 0, "That is the largest that a rank gave. all_reduce sums unless its `op` says otherwise. Each"),
    (what_all_reduce_returns, 0, "got None.*\n.*all_reduce works in place and returns None: return the tensor"),
    (
        never_waited_for,
        0,
        "at 1 rank: rank 0 never waited for the all_reduce with async_op=True .*\n.*and wait.. for it",
    ),
    (never_returned, 0, "got None.*\n.*You return None: return the tensor that holds the result"),
    (copy_from_before, 0, "your own input. The result of all_reduce stands in .* your argument, which is changed now"),
    (argument_in_place_of_the_sum, 0, "your own input. The result of all_reduce stands in .*: return that. Each"),
    (in_place, 0, "at 2 ranks: rank 0 changed its input"),
    (on_some_ranks, 0, "rank 0 returned; rank 1 waits for it in all_reduce, which it never joined"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_stub_is_not_told_what_is_asked():
    report = check(NAME, stubs(NAME)[NAME], save=False)
    assert report.score == 0 and report.verdicts and "all_reduce" not in repr(report), repr(report)
    assert ".draw()`. A reference is drawn beside an answer of your own." in repr(report), repr(report)
    drawing = report.draw(reference=True)
    assert {s.kind for s in drawing.trace.spans} == {"reduce"}
    assert drawing.title.endswith("yours. A reference is drawn beside an answer of your own")
