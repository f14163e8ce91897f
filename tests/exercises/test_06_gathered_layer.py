"""`gathered_layer`: the solution scores full marks, the stub none, another right answer passes."""

import sys

import cloudpickle
import torch
import torch.distributed as dist
from gathered_unit import CALL, scatter, shard_of
from grading import assert_full_marks, assert_generated, assert_no_marks, assert_passes, solutions, stubs
from torch import nn

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NOTEBOOK = "06_sharded_data_parallel"
NAME = "gathered_layer"
SOLUTIONS = solutions(NOTEBOOK)


def test_solution_scores_full_marks():
    assert_full_marks(NAME, SOLUTIONS[NAME])


def test_untouched_stub_scores_nothing():
    assert_no_marks(NAME, stubs(NOTEBOOK)[NAME])


def test_exercises_are_what_the_command_writes():
    assert_generated(NOTEBOOK)


# FSDP's own way: it empties the storage that autograd has saved, and fills it again


class Emptied(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.shard = nn.Parameter(shard_of(layer).clone())
        self.recipe = [layer.to("meta")]

    def fill(self, flat):
        flat.untyped_storage().resize_(flat.numel() * flat.element_size())
        with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(flat):
            dist.all_gather_into_tensor(flat.data, self.shard.detach())

    def forward(self, x):
        flat = torch.empty(len(self.shard) * dist.get_world_size(), dtype=self.shard.dtype).requires_grad_()
        self.fill(flat)

        def over(flat):
            flat.untyped_storage().resize_(0)
            part = scatter(flat.grad, self.shard.detach())
            self.shard.grad = part if self.shard.grad is None else self.shard.grad + part
            flat.grad = None

        flat.register_post_accumulate_grad_hook(over)
        output = CALL(self.recipe[0], flat, x)
        flat.untyped_storage().resize_(0)
        output.register_hook(lambda _: self.fill(flat))
        return output


def test_other_right_answers_pass():
    assert_passes(NAME, Emptied)
