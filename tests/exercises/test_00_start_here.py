"""The warm-up of chapter 00: the solution scores full marks, the stub none, every shortcut fails with its message."""

import sys

import cloudpickle
import nbformat
import pytest
import torch
import torch.distributed as dist
from grading import ROOT, assert_fails, assert_full_marks, assert_generated, solutions, stubs

from parallel_lab.course.checks import check

# Ranks get the functions below by value: importing this module there would load nbformat in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
NOTEBOOK, NAME = "00_start_here", "sum_of_ranks"
SOLUTION = solutions(NOTEBOOK)[NAME]


def test_solution_scores_full_marks():
    assert_full_marks(NAME, SOLUTION)


def attempt_of_the_chapter():
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == "sum-of-ranks")
    space = {"__name__": "__plab__", "dist": dist}  # no module of this name: the function travels to ranks by value
    exec(cell.source, space)
    return space["sum_of_ranks"]


def attempt_of_the_exercise():
    return stubs(NOTEBOOK)[NAME]


@pytest.mark.parametrize("attempt", [attempt_of_the_chapter, attempt_of_the_exercise])
def test_untouched_attempt_scores_nothing(attempt):
    report = check(NAME, attempt())
    assert report.score == 0, repr(report)
    assert "at 2 ranks: rank 1: element 0 is" in repr(report)
    assert "at 2 ranks: rank 0 called reduce; one all_reduce is enough" in repr(report)


def test_exercises_are_what_the_command_writes():
    assert_generated(NOTEBOOK)


def only_its_own(number):
    return number.clone()


def as_if_all_were_alike(number):
    return number * dist.get_world_size()


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
    return SOLUTION(number) / dist.get_world_size()


def largest(number):
    total = number.clone()
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    return total


def in_place(number):
    dist.all_reduce(number)
    return number


def summed_twice(number):
    dist.all_reduce(number.clone())
    return SOLUTION(number)


def as_python_number(number):
    return SOLUTION(number).item()


def forgotten_return(number):
    SOLUTION(number)


def on_some_ranks(number):
    return SOLUTION(number) if dist.get_rank() else number.clone()


def own_group(number):
    total = number.clone()
    dist.all_reduce(total, group=dist.new_group(backend="gloo"))
    return total


def by_store_with_a_collective_for_show(number):
    """The numbers travel through the rendezvous store, which no trace shows."""
    SOLUTION(number)
    store = dist.distributed_c10d._get_default_store()
    store.set(f"number{dist.get_rank()}", str(number.item()))
    numbers = [float(store.get(f"number{rank}")) for rank in range(dist.get_world_size())]
    return torch.tensor(numbers, dtype=number.dtype).sum()


CHEATS = [
    (only_its_own, "at 2 ranks: rank 0 called nothing; one all_reduce is enough"),
    (as_if_all_were_alike, "at 2 ranks: rank 0: element 0 is"),
    (reduce_then_broadcast, "at 2 ranks: rank 0 called reduce, broadcast; one all_reduce is enough"),
    (gather_everything, "at 2 ranks: rank 0 called all_gather; one all_reduce is enough"),
    (averaged, "at 2 ranks: rank 0: element 0 is"),
    (largest, "at 2 ranks: rank 0: element 0 is"),
    (in_place, "at 2 ranks: rank 0 changed its input"),
    (summed_twice, "rank 0 called all_reduce, all_reduce; one all_reduce is enough"),
    (as_python_number, "expected a torch.float64 tensor of shape ()"),
    (forgotten_return, "at 1 rank: rank 0 returned None"),
    (on_some_ranks, "rank 0 returned; rank 1 waits for it in all_reduce, which it never joined"),
    (own_group, "rank 0 called nothing; one all_reduce is enough"),
    (by_store_with_a_collective_for_show, "as it entered the collective. The sum must show it"),
]


@pytest.mark.parametrize(("cheat", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, said):
    assert_fails(NAME, cheat, said)
