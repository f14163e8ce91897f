"""Mixed: asynchronous early, synchronous late.

Source: Li et al. 2021, "Sync-Switch: Hybrid Parameter Synchronization for Distributed Deep Learning", who switch the
other way round, since stale gradients can also lead astray early; which order is better is a matter for measurement.

Idea: far from the optimum nearly every direction leads down, and stale gradients do little harm: be asynchronous, and
wait for nobody. Near it their noise keeps the loss up: wait for all. The switch comes after `switch_at` updates of the
first server: who reads from then on computes for a synchronous update, at every server.

Guarantee: after the switch that of synchronous SGD, from wherever the first phase has led.
Staleness: as in `asynchronous` before the switch and for gradients that are under way at that moment; those may come
between reading and pushing in the first synchronous round as well; 0 from the second on.
Sharded, replicated, bytes and memory: as in `asynchronous`.
A slow rank: nobody waits for it before the switch, all wait for it after.

One learning rate serves both phases, but an asynchronous update holds one worker's gradient and a synchronous one the
mean of all: the sum of n asynchronous steps is n times as long as one synchronous step.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.parameter_server import Mixed
from parallel_lab.synchronization import through_server
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.record import Record


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    switch_at: int,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    servers: int = 1,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model`, asynchronously at first and then synchronously; every rank calls it.

    Args:
        batches: global batches (inputs, targets), or a function (worker, workers) -> this worker's batches.
        optimizer_class: `optimizer_class(parameters, **optimizer_kwargs)` makes the servers' optimizer.
        switch_at: how many updates the first server makes before the switch, from 0.
        steps: how many gradients each worker computes; by default as many as it has batches.
        loss: of (outputs, targets), a mean over samples.
        servers: how many ranks serve, the first of the group; the others work.

    Raises:
        ValueError, TypeError: on the rank that caused it: models that differ, a gradient that is not finite (it never
            reaches the server), a `switch_at` that is no whole
            number from 0, too few ranks, a wrong learning rate.
    """
    rule = Mixed(switch_at)
    return through_server.train(
        model,
        batches,
        optimizer_class,
        rule,
        steps=steps,
        loss=loss,
        servers=servers,
        group=group,
        options=optimizer_kwargs,
    )
