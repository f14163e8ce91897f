"""Partially synchronous SGD: the first k of n gradients count, the others are backups.

Source: Chen et al. 2016, "Revisiting Distributed Synchronous SGD", section 3, algorithms 3 and 4.

Idea: all n workers compute a gradient at the same weights. As soon as k of them have arrived, their mean is the update,
and all workers go on with the new weights. A gradient of older weights that comes later is dropped.

Guarantee: synchronous SGD on k batches: what counts is never stale. But whoever is always late never counts: if speed
goes with data (one worker, one kind of data), the model does not see the slow worker's data at all.
Staleness: 0 for what counts; what is dropped has its own count (`Record.updates`).
Sharded, replicated, bytes and memory: as in `asynchronous`; dropped gradients travel too.
A slow rank: with n - k or fewer of them, nobody waits for it, and its work is lost. With more, all wait for the k-th.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import whole
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.synchronization import through_server
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.record import Record


@dataclass(frozen=True)
class Partial(Rule):
    """An update is the mean of the first `k` pushes of a version; later ones are dropped.

    With n workers, n - k are backups: so many slow ones delay nobody. Where fewer than `k` live, the server waits for
    all of them.

    Attributes:
        k: N in the paper, from 1.

    Raises:
        TypeError: `k` is no whole number.
        ValueError: `k` is below 1.
    """

    k: int

    def __post_init__(self) -> None:
        whole("k", self.k, 1)

    def check(self, workers: int, servers: int) -> None:
        """ValueError if there are fewer than `k` workers."""
        if self.k > workers:
            raise ValueError(f"Partial(k={self.k}) waits for {self.k} pushes and there are {workers} workers: lower k")

    def admits(self, state: State, read: int) -> bool:
        """Unless it was computed from an older version than the present one."""
        return read == state.version

    def due(self, state: State) -> Sequence[int]:
        """All that are held, once these are `k`, or one of every live worker."""
        return state.held if len(state.held) >= self.k or state.all_held() else ()


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    k: int,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    servers: int = 1,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model` partially synchronously through parameter servers; every rank calls it.

    Args:
        batches: global batches (inputs, targets), or a function (worker, workers) -> this worker's batches.
        optimizer_class: `optimizer_class(parameters, **optimizer_kwargs)` makes the servers' optimizer.
        k: how many gradients make an update, from 1 to the number of workers.
        steps: how many gradients each worker computes; by default as many as it has batches.
        loss: of (outputs, targets), a mean over samples.
        servers: how many ranks serve, the first of the group; the others work.

    Raises:
        ValueError, TypeError: on the rank that caused it: models that differ, a gradient that is not finite (it never
            reaches the server), a k out of range, too few ranks, a wrong learning rate.
    """
    rule = Partial(k)
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
