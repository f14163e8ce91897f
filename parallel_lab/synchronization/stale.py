"""Stale-synchronous SGD: asynchronous, on a leash.

Source: Ho et al. 2013, "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", section 2.

Idea: each worker counts its gradients: its clock. Pushes are applied at once, as in asynchronous SGD, but a worker that
is more than `bound` ahead of the slowest one has to wait before its next pull. Short delays cost nothing, and no
gradient can be arbitrarily stale.

Guarantee: for convex losses the regret of SGD up to a factor that grows with the square root of (bound + 1) times the
number of workers (theorem 1). The bound on staleness holds always.
Staleness: at most (n - 1) (2 bound + 1) updates with n workers: between a worker's pull and its push, each other one
can go from `bound` behind to `bound` + 1 ahead.
Sharded, replicated, bytes and memory: as in `asynchronous`.
A slow rank: the others run ahead by `bound` steps and then go at its pace. A bound of 0 keeps all on the same step; it
is not synchronous SGD, since each push is an update of its own.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.parameter_server import StaleSynchronous
from parallel_lab.synchronization import through_server
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.record import Record


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    bound: int,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    servers: int = 1,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model` stale-synchronously through parameter servers; every rank calls it.

    Args:
        batches: global batches (inputs, targets), or a function (worker, workers) -> this worker's batches.
        optimizer_class: `optimizer_class(parameters, **optimizer_kwargs)` makes the servers' optimizer.
        bound: how many gradients a worker may be ahead of the slowest one, from 0.
        steps: how many gradients each worker computes; by default as many as it has batches.
        loss: of (outputs, targets), a mean over samples.
        servers: how many ranks serve, the first of the group; the others work.

    Raises:
        ValueError, TypeError: on the rank that caused it: models that differ, a gradient that is not finite (it never
            reaches the server), a bound that is no whole number
            from 0, too few ranks, a wrong learning rate.
    """
    rule = StaleSynchronous(bound)
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
