"""Asynchronous SGD through a server: nobody waits for anybody.

Source: Dean et al. 2012, "Large Scale Distributed Deep Networks", section 4.1 (Downpour SGD).

Idea: each worker pulls the weights, computes a gradient and pushes it. The server applies each push at once, as an
update of its own, and answers each pull at once. By the time a gradient arrives, the weights have moved on: it is
*stale*, computed at weights that are no longer there.

Guarantee: none in general; for smooth losses it converges if the staleness is bounded and the learning rate is small
enough for it (Lian et al. 2015, "Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization", theorem 1).
Staleness: n - 1 with n equally fast workers; a worker that is k times slower than the others sees about k (n - 1).
Sharded: the batch, and over several servers weights and optimizer state. Replicated: weights on each worker.
Bytes per step: P numbers up and P down for a worker; a server sends its shard to each worker.
Memory: a worker holds weights and gradients; a server its shard of weights and optimizer state, and two buffers for
each worker.
A slow rank: nobody waits for it; its gradients are the stalest. With steps counted for each worker, it ends last.

A gradient is one worker's, not a mean over workers: n workers make n small updates where synchronous SGD makes one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.synchronization import through_server
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.record import Record


@dataclass(frozen=True)
class Asynchronous(Rule):
    """ASP, asynchronous parallel: each push is an update of its own, and nobody waits."""

    def due(self, state: State) -> Sequence[int]:
        """The first push, as soon as there is one."""
        return state.held[:1]

    def may_pull(self, state: State, worker: int) -> bool:
        """Always."""
        return True


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    servers: int = 1,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model` asynchronously through parameter servers; every rank calls it.

    Args:
        batches: global batches (inputs, targets), or a function (worker, workers) -> this worker's batches.
        optimizer_class: `optimizer_class(parameters, **optimizer_kwargs)` makes the servers' optimizer.
        steps: how many gradients each worker computes; by default as many as it has batches.
        loss: of (outputs, targets), a mean over samples.
        servers: how many ranks serve, the first of the group; the others work.

    Raises:
        ValueError, TypeError: on the rank that caused it: models that differ, a gradient that is not finite (it never
            reaches the server), too few ranks, a wrong learning rate.
    """
    rule = Asynchronous()
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
