"""`sharded_optimizer`: the solution scores full marks, the stub none, other right answers pass."""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from flat_optimizer import PART_OF, Flat
from grading import assert_full_marks, assert_generated, assert_no_marks, assert_passes, solutions, stubs

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NOTEBOOK = "06_sharded_data_parallel"
NAME = "sharded_optimizer"
SOLUTIONS = solutions(NOTEBOOK)


def test_solution_scores_full_marks():
    assert_full_marks(NAME, SOLUTIONS[NAME])


def test_untouched_stub_scores_nothing():
    assert_no_marks(NAME, stubs(NOTEBOOK)[NAME])


def test_exercises_are_what_the_command_writes():
    assert_generated(NOTEBOOK)


def right(params, optimizer_class, **options):
    return Flat(params, optimizer_class, options)


def views_of_one_tensor(params, optimizer_class, **options):
    """Not a cheat: the parameters become views of the flat tensor, and are gathered in place."""
    params, n, rank = list(params), dist.get_world_size(), dist.get_rank()
    sizes = [p.numel() for p in params]
    length = -(-sum(sizes) // n)
    flat = torch.zeros(n * length, dtype=params[0].dtype)
    flat[: sum(sizes)] = torch.cat([p.detach().flatten() for p in params])
    for p, view in zip(params, flat[: sum(sizes)].split(sizes), strict=True):
        p.data = view.view_as(p)
    shard = torch.nn.Parameter(flat[rank * length : (rank + 1) * length])

    class Views(optimizer_class):
        def zero_grad(self):
            for p in params:
                p.grad = None

        def step(self):
            shard.grad = PART_OF([p.grad for p in params], rank, length)
            super().step()
            dist.all_gather_into_tensor(flat, shard.detach().clone())

    return Views([shard], **options)


@pytest.mark.parametrize("answer", [right, views_of_one_tensor])
def test_other_right_answers_pass(answer):
    assert_passes(NAME, answer)
