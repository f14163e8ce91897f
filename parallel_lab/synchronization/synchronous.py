"""Synchronous SGD: every step waits for every rank.

Sources: Chen et al. 2016, "Revisiting Distributed Synchronous SGD", section 2.2; Goyal et al. 2017, "Accurate, Large
Minibatch SGD", section 3.

Idea: each rank computes the gradient of its share of the global batch at the same weights, the gradients are averaged,
and all ranks take the same step. So n ranks take the step that one process takes on the global batch.

Guarantee: equal to one process, whatever the number of ranks (up to the order of sums).
Staleness: 0.
Sharded: the batch. Replicated: weights, gradients, optimizer state.
Bytes per step: 2 (n-1)/n (P + 1) numbers a rank, P trained parameters and one count of samples.
Memory per rank: that of one process, and one flat copy of the gradients.
A slow rank: everyone waits for it at every step; a step takes as long as on the slowest rank.

Here the gradients travel in one message after the backward pass; `data_parallel.DDP` sends them during it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.job import Job, start, trained
from parallel_lab.synchronization.mean import start_mean
from parallel_lab.synchronization.record import Record
from parallel_lab.trace.record import span


@dataclass(frozen=True)
class Synchronous(Rule):
    """BSP, bulk synchronous parallel: an update is the mean over all live workers, who all pull the newest version."""

    in_step = True

    def due(self, state: State) -> Sequence[int]:
        """All pushes, once every live worker has made one."""
        return state.held if state.all_held() else ()


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model` synchronously; every rank calls it.

    Args:
        batches: global batches (inputs, targets), or a function (rank, ranks) -> this rank's batches. A rank counts by
            its samples; one whose batches have run out counts for nothing.
        optimizer_class: `optimizer_class(parameters, **optimizer_kwargs)` makes the optimizer.
        steps: how many steps; by default as many as there are batches.
        loss: of (outputs, targets), a mean over samples.

    Returns:
        A record whose losses are those of the global batches.

    Raises:
        ValueError, TypeError: on the rank that caused it: models that differ, a gradient that is not finite, a wrong
            learning rate or number of steps, no batches.
    """
    job = start(model, batches, optimizer_class, steps, loss, group, optimizer_kwargs)
    parameters = trained(job.model)
    for samples in job.gradients():
        # A parameter that this rank's batch did not use has a gradient of zero.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        means = start_mean(gradients, samples, group).wait()
        if means is None:
            continue
        for parameter, gradient in zip(parameters, means, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        with span("update"):
            job.optimizer.step()
    return _record(job, group)


def _record(job: Job, group: dist.ProcessGroup | None) -> Record:
    """Losses of the global batches: one small all-reduce for all steps, after the bytes of the steps are counted."""
    sums = torch.tensor([[x * n, n] for x, n in zip(job.losses, job.samples, strict=True)], dtype=torch.float64)
    record = job.record()
    sums = sums.to(next(job.model.parameters()).device)
    dist.all_reduce(sums, group=group)
    return replace(record, losses=[total / samples for total, samples in sums.tolist() if samples])
