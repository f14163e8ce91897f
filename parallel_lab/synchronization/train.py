"""One training loop for every strategy: gradients come from here, and the strategy says what becomes of them.

A strategy runs in one of two ways. Without servers, every rank has a replica of the model, and the strategy's
`stepper` takes a step from each gradient. With servers, the first ranks of the group keep the weights, the others work,
and the strategy is the rule that the servers ask (`parameter_server.rules`).

A loss is a mean over samples or tokens, or a tuple (sum, count). Gradients of several ranks are averaged by that count,
so that uneven batches and padding give the mean over the global batch, as in one process.

In a trace, the k-th batch that a rank draws is its microbatch k. A step takes one batch, so it has the same number.
"""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from parallel_lab.agree.arguments import by_name, check_rate, whole
from parallel_lab.model.data import Batch
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import to_model
from parallel_lab.parameter_server import Rule, Worker, serve
from parallel_lab.runtime.group import member
from parallel_lab.synchronization.batches import Source, agreed_rounds, own, padded
from parallel_lab.synchronization.record import Record, updates_of
from parallel_lab.synchronization.replicas import trained
from parallel_lab.trace import recorder, span

Loss = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, Tensor | float]]
IGNORED = -100  # cross_entropy's ignore_index: a target that does not count


class Stepper(Protocol):
    """Takes the steps of one rank that has a replica of the model."""

    def step(self, weight: float = 1) -> object:
        """Makes use of the gradients in `.grad`, which are the mean over `weight` samples or tokens."""
        ...

    def finish(self) -> None:
        """Ends the training; every rank calls it."""
        ...


class Replicated(Protocol):
    """A strategy that runs without servers."""

    def stepper(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, group: dist.ProcessGroup | None = None
    ) -> Stepper:
        """What runs the strategy on this rank."""
        ...


Strategy = Any  # a Rule, a Replicated, or both, which no type can say; `servers_of` looks


def train(
    strategy: Strategy,
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *extra: object,
    steps: int | None = None,
    loss: Loss = cross_entropy,
    servers: int | None = None,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs: Any,
) -> Record:
    """Trains a copy of `model` under `strategy`; every rank of the group calls it.

    Args:
        strategy: `Synchronous()`, `Asynchronous()`, `Stale(bound=2)`, `Partial(k=3)`, `Mixed(switch_at=20)`,
            `LocalSteps(every=8)`, `OuterSteps(every=500)` or `Hogwild()`.
        model: rank 0's weights are the start.
        batches: global batches (inputs, targets), or a function (rank, ranks) -> the batches of this rank, or of this
            worker where there are servers.
        optimizer_class: `optimizer_class(parameters, **optimizer_kwargs)` makes the optimizer.
        extra: nothing; every other argument is given by its name.
        steps: how many gradients each rank computes; by default as many as it has batches.
        loss: of (outputs, targets): a mean over the targets, or a tuple (sum, count). Of a mean, whole-number targets
            of -100 do not count.
        servers: how many ranks serve, the first of the group. By default 1, or 0 for a strategy that needs none.
        group: the ranks; the default group if None.
        optimizer_kwargs: for `optimizer_class`, as in `lr=0.1`.

    Raises:
        TypeError: a strategy that is none, or an argument of the wrong type.
        ValueError: on the rank that caused it: models that differ, a gradient that is not finite (it reaches no weights
            that others use), a number that makes no sense, no batches.
    """
    by_name("train(strategy, model, batches, optimizer_class)", extra, "steps")
    group, servers = member(group), servers_of(strategy, servers)
    check_rate(optimizer_kwargs)
    whole("steps", 1 if steps is None else steps)
    if 0 < servers < group.size():
        strategy.check(group.size() - servers, servers)
    model, began_s = deepcopy(model), time.monotonic()
    if not servers:
        optimizer = optimizer_class(trained(model), **optimizer_kwargs)
        record = _replicate(strategy, model, batches, optimizer, steps, loss, group)
    elif group.rank() < servers:
        served = serve(model, optimizer_class, strategy, servers=servers, group=group, **optimizer_kwargs)
        record = _served(served, model if servers == 1 else None)
    else:
        record = _work(Worker(model, servers=servers, group=group), batches, steps, loss)
    record.seconds = time.monotonic() - began_s
    return record


def servers_of(strategy: object, servers: int | None) -> int:
    """How many ranks serve.

    Args:
        strategy: what is to run.
        servers: what the caller wants; None for as few as the strategy can do with.

    Raises:
        TypeError: `strategy` is none, but the class of one, say.
        ValueError: it cannot run with so many servers.
    """
    alone, served = hasattr(strategy, "stepper"), isinstance(strategy, Rule)
    if isinstance(strategy, type) or not (alone or served):
        raise TypeError(f"strategy={strategy!r}: expected an object, such as Synchronous() or Stale(bound=2)")
    servers = (0 if alone else 1) if servers is None else whole("servers", servers, 0)
    if not (served if servers else alone):
        raise ValueError(f"servers={servers}: {strategy} runs with servers={0 if alone else '1 or more'}")
    return servers


def _replicate(
    strategy: Replicated,
    model: nn.Module,
    batches: Source,
    optimizer: torch.optim.Optimizer,
    steps: int | None,
    loss: Loss,
    group: dist.ProcessGroup,
) -> Record:
    """Every rank trains its replica."""
    stream = own(batches, group.rank(), group.size())
    rounds = agreed_rounds(stream, steps, next(model.parameters()).device, group)
    stepper, before = strategy.stepper(model, optimizer, group=group), sent_bytes()
    found: list[tuple[float, float]] = []
    for mb, batch in enumerate(padded(stream, rounds)):
        model.zero_grad()
        found.append(backward(model, batch, loss, mb))
        stepper.step(found[-1][1])
    stepper.finish()
    sent, losses = sent_bytes() - before, [value for value, weight in found if weight]
    staleness = getattr(stepper, "staleness", [0] * len(losses))
    if isinstance(strategy, Rule):  # in step, so that a step has a loss of its own
        losses = _global_losses(found, next(model.parameters()).device, group)
    return Record(losses, staleness=staleness, weights=weights(model), sent_bytes=sent)


def _served(served: Any, model: nn.Module | None) -> Record:
    """What a server did; the parameters are given names where `model` is given, and the server holds all of it."""
    if model is not None:
        vector_to_parameters(served.parameters.to(next(model.parameters()).device), trained(model))
    return Record(
        staleness=served.staleness,
        weights={} if model is None else weights(model),
        sent_bytes=served.sent_bytes,
        updates=updates_of(served.pushes),
    )


def _work(worker: Worker, batches: Source, steps: int | None, loss: Loss) -> Record:
    """A worker's life: pull, forward, backward, push for each of its batches; then it waits for the others."""
    found: list[tuple[float, float]] = []
    try:
        for mb, batch in enumerate(_drawn(own(batches, worker.index, worker.workers), steps)):
            worker.pull()
            worker.model.zero_grad(set_to_none=False)  # gradients may live where they are sent from
            found.append(backward(worker.model, batch, loss, mb))
            worker.push(found[-1][1])
        if not found:
            raise ValueError(f"worker {worker.index} has no batches to train on")
        worker.finish()
    except BaseException:
        worker.leave()  # the process may live on, and the servers would wait for it
        raise
    losses = [value for value, weight in found if weight]
    return Record(losses, weights=weights(worker.model), sent_bytes=worker.sent_bytes)


def _drawn(stream, steps: int | None) -> Iterator[Batch | None]:
    """The first `steps` batches, or all; None in place of an empty one."""
    for inputs, targets in islice(stream, steps):
        yield (inputs, targets) if len(inputs) else None


def backward(model: nn.Module, batch: Batch | None, loss: Loss, mb: int) -> tuple[float, float]:
    """Adds the gradients of the mean loss of one batch to `.grad`.

    Args:
        model: whose gradients.
        batch: (inputs, targets), or None for no batch.
        loss: as in `train`.
        mb: the number of the batch.

    Returns:
        The mean loss, and over how many samples or tokens it is the mean: (0, 0) where nothing counts.
    """
    if batch is None:
        return 0.0, 0
    with span("forward", mb=mb):
        mean, weight = mean_loss(model, batch, loss)
    with span("backward", mb=mb):
        if weight:
            mean.backward()
    return (mean.item(), weight) if weight else (0.0, 0)


def mean_loss(model: nn.Module, batch: Batch, loss: Loss) -> tuple[Tensor, float]:
    """The mean loss of one batch, a scalar, and over how many samples or tokens it is the mean."""
    inputs, targets = to_model(model, batch)
    value = loss(model(inputs), targets)
    if isinstance(value, tuple):
        total, count = value
        return total / (count or 1), float(count)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return value, len(targets)
    return value, int((targets != IGNORED).sum())


def sent_bytes() -> int:
    """What has left this process until now, as its recorder saw it."""
    return sum(s.sent_bytes for s in recorder().spans)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's `state_dict()`, apart from any memory that ranks share."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _global_losses(found: list[tuple[float, float]], device: torch.device, group: dist.ProcessGroup) -> list[float]:
    """The losses of the global batches: one small all-reduce for all steps, after their bytes were counted."""
    sums = torch.tensor([[value * weight, weight] for value, weight in found], dtype=torch.float64, device=device)
    dist.all_reduce(sums, group=group)
    return [total / weight for total, weight in sums.tolist() if weight]
