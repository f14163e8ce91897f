"""One training loop for every strategy: gradients come from here, and the strategy says what becomes of them.

A strategy runs in one of two ways. Without servers, every rank has a replica of the model, and the strategy's
`stepper` takes a step from each gradient. With servers, the first ranks of the group keep the weights, the others work,
and the strategy is the rule that the servers ask (`parameter_server.rules`).

A loss is a mean over samples or tokens, or a tuple (sum, count). Gradients of several ranks are averaged by that count,
so that uneven batches and padding give the mean over the global batch, as in one process.

In a trace, the k-th batch that a rank draws is its microbatch k. A step takes one batch, so it has the same number.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import check_rate, keyword_only, whole
from parallel_lab.model.data import Batch
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss, backward
from parallel_lab.parameter_server import Rule, Update, Worker, serve
from parallel_lab.parameter_server.shards import write
from parallel_lab.runtime.group import member
from parallel_lab.synchronization.batches import Source, agreed_rounds, own, padded
from parallel_lab.synchronization.replicas import Stepper, trained
from parallel_lab.trace import recorder

Strategy = Any  # a `Rule`, what has a `stepper`, or both, which no type can say; `servers_of` looks
Losses = list[tuple[float, float]]  # of each batch the mean loss, and over how many samples or tokens it is the mean


@dataclass
class Record:
    """What training came to on one rank.

    Attributes:
        losses: of synchronous training without servers, the mean over each step's global batch; otherwise of this
            rank's own batches, each before its update. Empty on a server.
        staleness: one number for each gradient used that this rank knows the fate of: its own, on a server everybody's.
        weights: at the end, by name as in `state_dict()`; empty on one of several servers, which has only a part.
        sent_bytes: what left this rank while it trained, as the recorder saw it.
        updates: on a server, the gradients in the order in which they took effect; empty elsewhere.
        seconds: how long this rank trained, by the clock.
    """

    losses: list[float]
    staleness: list[int]
    weights: Mapping[str, Tensor]
    sent_bytes: int
    updates: list[Update] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def dropped(self) -> int:
        """How many gradients came too late to be used; known on a server."""
        return sum(update.dropped for update in self.updates)


@keyword_only("lr")
def train(
    strategy: Strategy,
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
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
    group, servers = member(group), servers_of(strategy, servers)
    check_rate(optimizer_kwargs)
    whole("steps", 1 if steps is None else steps)
    if 0 < servers < group.size():
        strategy.check(group.size() - servers, servers)
    began_s, model = time.monotonic(), deepcopy(model)
    if not servers:
        stepper = strategy.stepper(model, optimizer_class(trained(model), **optimizer_kwargs), group=group)
        record = _replicate(stepper, isinstance(strategy, Rule), batches, steps, loss, group)
    elif group.rank() < servers:
        served = serve(model, optimizer_class, strategy, servers=servers, group=group, **optimizer_kwargs)
        if servers == 1:
            write(model, served.parameters)
        kept = weights(model) if servers == 1 else {}
        record = Record([], served.staleness, kept, served.sent_bytes, served.updates)
    else:
        worker = Worker(model, servers=servers, group=group)
        found = _work(worker, islice(own(batches, worker.index, worker.workers), steps), loss)
        record = Record(_counted(found), [], weights(model), worker.sent_bytes)
    record.seconds = time.monotonic() - began_s
    return record


def servers_of(strategy: object, servers: int | None) -> int:
    """How many ranks serve where the caller wants `servers`; None stands for as few as the strategy can do with."""
    alone, served = hasattr(strategy, "stepper"), isinstance(strategy, Rule)
    if isinstance(strategy, type) or not (alone or served):
        raise TypeError(f"strategy={strategy!r}: expected an object, such as Synchronous() or Stale(bound=2)")
    servers = (0 if alone else 1) if servers is None else whole("servers", servers, 0)
    if not (served if servers else alone):
        raise ValueError(f"servers={servers}: {strategy} runs with servers={0 if alone else '1 or more'}")
    return servers


def _replicate(
    stepper: Stepper, in_step: bool, batches: Source, steps: int | None, loss: Loss, group: dist.ProcessGroup
) -> Record:
    """Every rank trains its replica; `in_step` says whether all take the same step, which then has one loss."""
    model, device = stepper.model, next(stepper.model.parameters()).device
    stream = own(batches, group.rank(), group.size())
    rounds = agreed_rounds(stream, steps, device, group)
    before = recorder().sent_bytes
    found: Losses = []
    for mb, batch in enumerate(padded(stream, rounds)):
        model.zero_grad()
        found.append(backward(model, batch, loss, mb))
        stepper.step(found[-1][1])
    stepper.finish()
    sent, losses = recorder().sent_bytes - before, _counted(found)
    staleness = getattr(stepper, "staleness", [0] * len(losses))
    if in_step:
        losses = _global_losses(found, device, group)
    return Record(losses, staleness, weights(model), sent)


def _work(worker: Worker, batches: Iterable[Batch], loss: Loss) -> Losses:
    """A worker's life: pull, forward, backward, push for each of its batches; then it waits for the others.

    Whatever goes wrong, the worker leaves first: the process may live on, and the servers would wait for it.
    """
    found: Losses = []
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


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's `state_dict()`, apart from any memory that ranks share."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _counted(found: Losses) -> list[float]:
    """The losses of the batches that count."""
    return [value for value, weight in found if weight]


def _global_losses(found: Losses, device: torch.device, group: dist.ProcessGroup) -> list[float]:
    """The losses of the global batches: one small all-reduce for all steps, after their bytes were counted."""
    sums = torch.tensor([[value * weight, weight] for value, weight in found], dtype=torch.float64, device=device)
    dist.all_reduce(sums, group=group)
    return [total / weight for total, weight in sums.tolist() if weight]
