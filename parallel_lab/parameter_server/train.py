"""Training through servers: what a worker does with its batches, and all of it as one call on every rank.

`synchronization.train` is the same for every strategy, with and without servers; this is its part that needs servers.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.model.data import Batch, shard_sizes
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss, backward
from parallel_lab.parameter_server import wire
from parallel_lab.parameter_server.record import Push
from parallel_lab.parameter_server.rules import Rule
from parallel_lab.parameter_server.server import serve
from parallel_lab.parameter_server.shards import write
from parallel_lab.parameter_server.worker import Worker

Source = Iterable[Batch] | Callable[[int, int], Iterable[Batch]]
"""Global batches, of which each worker takes its contiguous share; or a function (worker, workers) -> its own."""


@dataclass
class Trained:
    """What one rank did.

    Attributes:
        losses: of a worker, the mean loss of each of its batches that counts, before the push.
        weights: by name as in `state_dict()`, after the last update of all; empty on one of several servers, which has
            only a part.
        sent_bytes: what left this rank.
        pushes: of a server, the pushes in the order of use; dropped ones when they came.
    """

    losses: list[float] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    sent_bytes: int = 0
    pushes: list[Push] = field(default_factory=list)


def work(worker: Worker, batches: Iterable[Batch], loss: Loss) -> list[tuple[float, float]]:
    """A worker's life: pull, forward, backward, push for each of its batches; then it waits for the others.

    Args:
        worker: this rank.
        batches: its own batches (inputs, targets); an empty one counts for nothing.
        loss: of (outputs, targets): a mean over the targets, or a tuple (sum, count).

    Returns:
        Of each batch the mean loss, and over how many samples or tokens it is the mean.

    Raises:
        ValueError: there are no batches, or a gradient is not finite. Whatever is raised, the worker leaves first: the
            process may live on, and the servers would wait for it.
    """
    found: list[tuple[float, float]] = []
    try:
        for mb, (inputs, targets) in enumerate(batches):
            worker.pull()
            worker.model.zero_grad(set_to_none=False)  # gradients may live where they are sent from
            found.append(backward(worker.model, (inputs, targets) if len(inputs) else None, loss, mb))
            worker.push(found[-1][1])
        if not found:
            raise ValueError(f"worker {worker.index} has no batches to train on")
        worker.finish()
    except BaseException:
        worker.leave()
        raise
    return found


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    rule: Rule | None = None,
    steps: int | None = None,
    loss: Loss = cross_entropy,
    servers: int = 1,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs: Any,
) -> Trained:
    """Trains a copy of `model`; every rank calls it: the first `servers` serve, the others work.

    Args:
        model: the model, the same on all ranks.
        batches: what the workers train on.
        optimizer_class: `optimizer_class(parameters, **optimizer_kwargs)` makes the optimizer.
        rule: the rule of consistency; by default all wait for all.
        steps: how many batches each worker takes; by default all that it has.
        loss: of (outputs, targets): a mean over the targets, or a tuple (sum, count).
        servers: the number of servers.
        group: servers and workers; by default all ranks.
        optimizer_kwargs: the settings of the optimizer.

    Returns:
        What this rank did.
    """
    group, model = wire.members(group, servers), deepcopy(model)
    if group.rank() < servers:
        options: dict[str, Any] = {"servers": servers, "group": group, **optimizer_kwargs}
        served = serve(model, optimizer_class, rule or Rule(), **options)
        if servers == 1:
            write(model, served.parameters)
        return Trained([], _weights(model) if servers == 1 else {}, served.sent_bytes, served.pushes)
    worker = Worker(model, servers=servers, group=group)
    mine = batches(worker.index, worker.workers) if callable(batches) else _shares(batches, worker)
    found = work(worker, islice(mine, steps), loss)
    return Trained([value for value, weight in found if weight], _weights(model), worker.sent_bytes)


def _shares(batches: Iterable[Batch], worker: Worker) -> Iterator[Batch]:
    for inputs, targets in batches:
        sizes = shard_sizes(len(inputs), worker.workers)
        yield inputs.split(sizes)[worker.index], targets.split(sizes)[worker.index]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
