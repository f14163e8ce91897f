"""One training loop for every strategy: gradients come from here, and the strategy says what becomes of them.

A strategy runs in one of two ways. Without servers, every rank has a replica of the model, and the strategy's
`stepper` takes a step from each gradient. With servers, the first ranks of the group keep the weights, the others work,
and the strategy is the rule that the servers ask (`parameter_server.rules`).

A loss is a mean over samples or tokens, or a tuple (sum, count). Gradients of several ranks are averaged by that count,
so that uneven batches and padding give the mean over the global batch, as in one process. A rank may get nothing at all
in a round: then it stands for no samples, but takes part in the round's communication.

In a trace, the i-th batch that a rank draws is its microbatch i. A step takes one batch, so it has the same number.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from parallel_lab.agree.arguments import check_rate, keyword_only, whole
from parallel_lab.model.data import Batch, Batches
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss, backward
from parallel_lab.parameter_server import Rule, Update, Worker, serve
from parallel_lab.runtime.group import member
from parallel_lab.synchronization.replicas import Stepper, trained
from parallel_lab.trace import recorder

Strategy = Any  # a `Rule`, what has a `stepper`, or both, which no type can say; `_servers` looks
Source = Iterable[Batch] | Callable[[int, int], Iterable[Batch]]  # global batches, or (rank, ranks) -> the rank's own
Losses = list[tuple[float, float]]  # of each batch the mean loss, and how many samples or tokens it is the mean over


@dataclass
class Record:
    """What training came to on one rank."""

    losses: list[float]  # of its batches, each before its update; of the global ones under `Synchronous()`, no servers
    staleness: list[int]  # of each gradient used that this rank knows the fate of: its own, on a server everybody's
    weights: Mapping[str, Tensor]  # at the end, as in `state_dict()`; empty on one of several servers
    sent_bytes: int  # what left this rank while it trained, as the recorder saw it
    updates: list[Update] = field(default_factory=list)  # on a server, in the order in which they took effect

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
    """Trains a copy of `model`, from rank 0's weights, under `strategy`; every rank of the group calls it.

    The strategy is an object, such as `Stale(bound=2)`. `batches` are the global ones (inputs, targets), or a function
    (rank, ranks) -> the batches of this rank, or of this worker where there are servers. By default each rank computes
    as many gradients as it has batches, and no rank serves, or 1 where the strategy needs a server. Of a loss that is a
    mean, whole-number targets of -100 do not count.

    Raises:
        TypeError: a strategy that is none, or an argument of the wrong type.
        ValueError: on the rank that caused it: models that differ, a gradient that is not finite (it reaches no weights
            that others use), a number that makes no sense, no batches.
    """
    group, servers, model = member(group), _servers(strategy, servers), deepcopy(model)
    check_rate(optimizer_kwargs)
    whole("steps", 1 if steps is None else steps)
    if not servers:
        stepper = strategy.stepper(model, optimizer_class(trained(model), **optimizer_kwargs), group=group)
        return _replicate(stepper, isinstance(strategy, Rule), batches, steps, loss, group)
    if servers < group.size():
        strategy.check(group.size() - servers, servers)
    if group.rank() < servers:
        served = serve(model, optimizer_class, strategy, servers=servers, group=group, **optimizer_kwargs)
        if servers == 1:
            vector_to_parameters(served.parameters.to(trained(model)[0].device), trained(model))
        kept = weights(model) if servers == 1 else {}
        return Record([], served.staleness, kept, served.sent_bytes, served.updates)
    worker = Worker(model, servers=servers, group=group)
    found = _work(worker, islice(own(batches, worker.index, worker.workers), steps), loss)
    return Record([value for value, weight in found if weight], [], weights(model), worker.sent_bytes)


def _servers(strategy: object, servers: int | None) -> int:
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
    """Every rank trains its replica; where they go `in_step`, the losses are those of the global batches."""
    model, device = stepper.model, next(stepper.model.parameters()).device
    stream = own(batches, group.rank(), group.size())
    rounds = torch.tensor(_count(stream, steps), device=device)
    dist.all_reduce(rounds, dist.ReduceOp.MAX, group=group)  # so that every rank takes part in each collective
    before = recorder().sent_bytes
    found: Losses = []
    for mb, batch in enumerate(islice(chain(stream, repeat(None)), int(rounds))):
        model.zero_grad()
        found.append(backward(model, batch, loss, mb))
        stepper.step(found[-1][1])
    stepper.finish()
    sent_bytes, losses = recorder().sent_bytes - before, [value for value, weight in found if weight]
    staleness = getattr(stepper, "staleness", [0] * len(losses))
    if in_step:  # one small all-reduce for all steps, after their bytes were counted
        sums = torch.tensor([[value * weight, weight] for value, weight in found], dtype=torch.float64, device=device)
        dist.all_reduce(sums, group=group)
        losses = [total / weight for total, weight in sums.tolist() if weight]
    return Record(losses, staleness, weights(model), sent_bytes)


def _work(worker: Worker, batches: Iterable[Batch], loss: Loss) -> Losses:
    """A worker's life: pull, forward, backward, push for each of its batches; then it waits for the others.

    Whatever goes wrong, the worker leaves first: the process may live on, and the servers would wait for it.
    """
    found: Losses = []
    try:
        for mb, batch in enumerate(batches):
            worker.pull()
            worker.model.zero_grad(set_to_none=False)  # gradients may live where they are sent from
            found.append(backward(worker.model, batch, loss, mb))
            worker.push(found[-1][1])
        if not found:
            raise ValueError(f"worker {worker.index} has no batches to train on")
        worker.finish()
    except BaseException:
        worker.leave()
        raise
    return found


def own(batches: Source, rank: int, ranks: int) -> Iterable[Batch]:
    """The batches of one rank: its own, or its contiguous share of each global one, which may be empty."""
    if callable(batches):
        return batches(rank, ranks)

    def shares() -> Iterator[Batch]:
        for inputs, targets in batches:
            yield inputs.tensor_split(ranks)[rank], targets.tensor_split(ranks)[rank]

    return Batches(len(batches), shares) if isinstance(batches, Sized) else shares()


def _count(stream: Iterable[Batch], steps: int | None) -> int:
    """How many batches to draw: all of them, or `steps` if that is less."""
    length = len(stream) if isinstance(stream, Sized) else steps
    if length is None:
        raise TypeError("the batches do not say how many they are: give steps=")
    if length == 0:
        raise ValueError("no batches to train on")
    return min(length, steps or length)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's `state_dict()`, apart from any memory that ranks share."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
