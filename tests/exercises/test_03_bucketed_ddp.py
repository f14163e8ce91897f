"""`bucketed_ddp`: the solution scores full marks, the stub none, other right answers pass."""

import sys

import cloudpickle
import pytest
import torch.distributed as dist
from bucket_hooks import BUCKETS_OF, flat_of, last_first, reduce_in_hook, start_equal
from grading import assert_full_marks, assert_generated, assert_no_marks, assert_passes, solutions, stubs
from torch import nn

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NOTEBOOK = "03_data_parallel"
NAME = "bucketed_ddp"
SOLUTIONS = solutions(NOTEBOOK)


def test_solution_scores_full_marks():
    assert_full_marks(NAME, SOLUTIONS[NAME])


def test_untouched_stub_scores_nothing():
    assert_no_marks(NAME, stubs(NOTEBOOK)[NAME])


def test_exercises_are_what_the_command_writes():
    assert_generated(NOTEBOOK)


class WaitsInLastHook(nn.Module):
    """Not a cheat: gradients are views of their bucket, and the hook of the very last gradient waits."""

    def __init__(self, model, bucket_bytes):
        super().__init__()
        start_equal(model)
        self.model, self.under_way = model, []
        self.buckets = BUCKETS_OF(last_first(model), bucket_bytes)
        self.missing = [len(bucket) for bucket in self.buckets]
        for number, bucket in enumerate(self.buckets):
            for p in bucket:
                p.register_post_accumulate_grad_hook(lambda _, number=number: self.ready(number))

    def forward(self, x):
        return self.model(x)

    def ready(self, number):
        self.missing[number] -= 1
        if self.missing[number] == 0:
            bucket = self.buckets[number]
            flat = flat_of(bucket) / dist.get_world_size()
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p)
            self.under_way.append(dist.all_reduce(flat, async_op=True))
        if not any(self.missing):
            for work in self.under_way:
                work.wait()
            self.under_way.clear()
            self.missing = [len(bucket) for bucket in self.buckets]


@pytest.mark.parametrize("answer", [reduce_in_hook, WaitsInLastHook])
def test_other_right_answers_pass(answer):
    assert_passes(NAME, answer)
