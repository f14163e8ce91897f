"""One training loop for every strategy: gradients come from here, and the strategy says what becomes of them.

A strategy runs in one of two ways. Without servers, every rank has a replica of the model, and the strategy's
`stepper` takes a step from each gradient. With servers, the first ranks of the group keep the weights, the others work,
and the strategy is the rule that the servers ask (`parameter_server.rules`).

A loss is a mean over samples or tokens, or a tuple (sum, count). Gradients of several ranks are averaged by that count,
so that uneven batches and padding give the mean over the global batch, as in one process.

In a trace, the k-th batch that a rank draws is its microbatch k. A step takes one batch, so it has the same number.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab import parameter_server
from parallel_lab.agree.arguments import by_name, check_rate, whole
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss, backward
from parallel_lab.parameter_server import Rule
from parallel_lab.runtime.group import member
from parallel_lab.synchronization.batches import Source, agreed_rounds, own, padded
from parallel_lab.synchronization.record import Record, updates_of
from parallel_lab.synchronization.replicas import trained
from parallel_lab.trace import recorder


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
    began_s = time.monotonic()
    if servers:
        options: dict[str, Any] = {"rule": strategy, "steps": steps, "loss": loss, "servers": servers, "group": group}
        record = _told(parameter_server.train(model, batches, optimizer_class, **options, **optimizer_kwargs))
    else:
        model = deepcopy(model)
        optimizer = optimizer_class(trained(model), **optimizer_kwargs)
        record = _replicate(strategy, model, batches, optimizer, steps, loss, group)
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
    stepper, before = strategy.stepper(model, optimizer, group=group), recorder().sent_bytes
    found: list[tuple[float, float]] = []
    for mb, batch in enumerate(padded(stream, rounds)):
        model.zero_grad()
        found.append(backward(model, batch, loss, mb))
        stepper.step(found[-1][1])
    stepper.finish()
    sent, losses = recorder().sent_bytes - before, [value for value, weight in found if weight]
    staleness = getattr(stepper, "staleness", [0] * len(losses))
    if isinstance(strategy, Rule):  # in step, so that a step has a loss of its own
        losses = _global_losses(found, next(model.parameters()).device, group)
    return Record(losses, staleness=staleness, weights=weights(model), sent_bytes=sent)


def _told(done: parameter_server.Trained) -> Record:
    """What a training through servers came to on this rank."""
    updates = updates_of(done.pushes)
    staleness = [update.staleness for update in updates if not update.dropped]
    return Record(done.losses, staleness, done.weights, done.sent_bytes, updates)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's `state_dict()`, apart from any memory that ranks share."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _global_losses(found: list[tuple[float, float]], device: torch.device, group: dist.ProcessGroup) -> list[float]:
    """The losses of the global batches: one small all-reduce for all steps, after their bytes were counted."""
    sums = torch.tensor([[value * weight, weight] for value, weight in found], dtype=torch.float64, device=device)
    dist.all_reduce(sums, group=group)
    return [total / weight for total, weight in sums.tolist() if weight]
