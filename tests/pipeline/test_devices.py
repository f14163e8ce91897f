"""The executor with tensors on the CPU, and on one GPU that the ranks share, where messages go through host memory."""

import sys

import cloudpickle
import pytest
import torch
from chains import SCHEDULES, alone, chain, data, gap, microbatches_of, own, squares

from parallel_lab import launch, pipeline
from parallel_lab.pipeline import Stage, step, sum_tied, tie
from parallel_lab.runtime import rank_device

cloudpickle.register_pickle_by_value(sys.modules[__name__])

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def on_device(recompute):
    """By schedule the largest differences from one process, of the loss and of the gradients."""
    device, found = rank_device(), {}
    for name, schedule in SCHEDULES.items():
        plan = schedule(2, 3)
        modules = [module.to(device) for module in chain(len(pipeline.placement(plan)))]
        mine, pieces = own(plan, modules), data(microbatches_of(plan))
        inputs, targets = ([piece.to(device) for piece in each] for each in pieces)
        expected, reference = alone(modules, inputs, targets)
        stages = {s: Stage(module, recompute=recompute) for s, module in mine.items()}
        losses = [step(plan, stages, inputs, targets, squares).item() for _ in range(2)]
        found[name] = max(abs(loss - expected) for loss in losses), gap(mine, reference, scale=2)
    weight = torch.nn.Parameter(torch.full((2,), 3.0 + torch.distributed.get_rank(), device=device))
    bond = tie(weight)
    weight.grad = weight.detach().clone()
    sum_tied(bond)
    found["tied"] = float((weight.grad - 6).abs().max()), 0.0
    return found, str(device)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_every_schedule(device, recompute):
    for found, where in launch(on_device, recompute, ranks=2, device=device):
        assert where.startswith(device)
        assert {name: gaps for name, gaps in found.items() if max(gaps) > 1e-10} == {}
