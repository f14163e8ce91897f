"""A data-parallel training loop whose parts the cheats of `training_framework` replace."""

import sys

import cloudpickle
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import solutions

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SOLUTIONS = solutions("03_data_parallel")
RESUME, SAVE = SOLUTIONS["resume"], SOLUTIONS["save"]


def own_rows(k, batch):
    return torch.arange(k * batch, (k + 1) * batch).tensor_split(dist.get_world_size())[dist.get_rank()]


def add_up(model, total):
    for tensor in [*(p.grad for p in model.parameters()), total]:
        dist.all_reduce(tensor)


def summed(output, target, batch):
    return F.cross_entropy(output, target, reduction="sum") / batch


def nothing(*_):
    return None


def framework(
    rows_of=own_rows, loss_of=summed, exchange=add_up, resume=RESUME, save=SAVE, micro=lambda m: m, each=None
):
    def training_framework(model, inputs, targets, *, steps, batch, microbatches=1, lr=0.1, checkpoint=None):
        optimizer, losses = torch.optim.SGD(model.parameters(), lr, momentum=0.9), []
        for k in range(resume(model, optimizer, checkpoint), steps):
            total = torch.zeros((), dtype=inputs.dtype)
            optimizer.zero_grad()
            for rows in rows_of(k, batch).tensor_split(micro(microbatches)):
                loss = loss_of(model(inputs[rows]), targets[rows], batch)
                loss.backward()
                total += loss.detach()
                if each:
                    each(model)
            exchange(model, total)
            optimizer.step()
            losses.append(total.item())
        save(model, optimizer, steps, checkpoint)
        return losses

    return training_framework
