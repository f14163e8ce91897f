"""Training through parameter servers, as one function that every rank calls."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import check_rate, whole
from parallel_lab.model.data import Batch, share
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.parameter_server.handshake import check_rule, members
from parallel_lab.parameter_server.record import Record
from parallel_lab.parameter_server.rules import Rule
from parallel_lab.parameter_server.server import serve
from parallel_lab.parameter_server.worker import Worker
from parallel_lab.trace import span

Source = Sequence[Batch] | Callable[[int, int], Iterable[Batch]]
"""Global batches, of which each worker takes its share; or a function of worker and workers that gives its own."""


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    consistency: Rule,
    servers: int = 1,
    loss: LossFn = cross_entropy,
    steps: int | None = None,
    snapshot: str | os.PathLike | None = None,
    every: int = 10,
    resume: bool = False,
    spares: int = 0,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs: Any,
) -> Record:
    """Trains a copy of `model` on the ranks of `group`, which all call it: the first `servers` serve, the others work.

    With `Synchronous()` and a list of global batches, the weights are those of `model.train` in one process.

    Args:
        batches: global batches (inputs, targets), of which each worker takes its share, or see `Source`.
        consistency: a rule of `synchronization`.
        loss: of (outputs, targets), a mean over samples.
        steps: how many steps each worker makes at most; None for as long as its batches last.
        spares, snapshot, every, resume, optimizer_kwargs: as in `serve`.

    Raises TypeError or ValueError as `serve` and `Worker` do, and ValueError on a worker without batches.
    """
    group = members(group, servers, spares)
    check_rate(optimizer_kwargs)
    rule = consistency
    check_rule(rule, group.size() - servers, servers - spares)
    whole("steps", 1 if steps is None else steps)
    model = deepcopy(model)
    if group.rank() < servers:
        options: dict[str, Any] = {"snapshot": snapshot, "every": every, "resume": resume, "group": group}
        return serve(model, optimizer_class, rule, servers=servers, spares=spares, **options, **optimizer_kwargs)
    worker = Worker(model, servers, spares, group)
    return work(worker, islice(mine(batches, worker.index, worker.workers), steps), loss)


def mine(batches: Source, worker: int, workers: int) -> Iterator[Batch]:
    """The batches of one worker; ValueError if a global batch leaves it without a sample."""
    if callable(batches):
        yield from batches(worker, workers)
        return
    for inputs, targets in batches:
        part = share(len(inputs), worker, workers)
        yield inputs[part], targets[part]


def work(worker: Worker, batches: Iterable[Batch], loss: LossFn) -> Record:
    """A worker's life: pull, forward, backward, push for each of its batches, then wait for the end.

    ValueError if there are no batches, or a gradient is not finite; whatever is raised, the worker leaves first.
    """
    try:
        return _work(worker, batches, loss)
    except BaseException:
        worker.leave()  # the process may live on, and the servers would wait for it
        raise


def _work(worker: Worker, batches: Iterable[Batch], loss: LossFn) -> Record:
    record, began_s = Record("worker"), time.monotonic()
    for step, batch in enumerate(batches):
        record.versions.append(worker.pull())
        record.losses.append(backward(worker.model, batch, loss, step))
        worker.push(samples=len(batch[0]))
    if not record.losses:
        raise ValueError(f"worker {worker.index} has no batches to train on")
    worker.finish()
    record.weights = {name: tensor.clone() for name, tensor in worker.model.state_dict().items()}
    record.seconds, record.sent_bytes = time.monotonic() - began_s, worker.sent_bytes
    return record


def backward(model: nn.Module, batch: Batch, loss: LossFn, step: int) -> float:
    """Leaves the gradients of one batch's mean loss in `.grad`, and returns that loss."""
    like = next(model.parameters())
    inputs, targets = batch
    inputs = inputs.to(like.device, like.dtype if inputs.is_floating_point() else inputs.dtype)
    model.zero_grad(set_to_none=False)  # where gradients are views of the message, they stay so
    with span("forward", mb=step):
        value = loss(model(inputs), targets.to(like.device))
    with span("backward", mb=step):
        value.backward()
    return value.item()
