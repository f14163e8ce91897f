"""What every `train` of this folder begins and ends with: a copy of the model, an optimizer, batches, the record."""

import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import check_rate
from parallel_lab.agree.finite import require_finite
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.model.data import Batch
from parallel_lab.model.reference import LossFn
from parallel_lab.runtime.group import member
from parallel_lab.synchronization.batches import Source, agreed_rounds, own, padded
from parallel_lab.synchronization.record import Record
from parallel_lab.trace.record import recorder, span


def sent_bytes() -> int:
    """What has left this process until now, as its recorder saw it."""
    return sum(s.sent_bytes for s in recorder().spans)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained; tied ones once."""
    return [p for p in model.parameters() if p.requires_grad]


def optimizer_of(
    model: nn.Module, optimizer_class: Callable[..., torch.optim.Optimizer], options: dict
) -> torch.optim.Optimizer:
    """`optimizer_class(parameters, **options)`; TypeError or ValueError if `lr` is no learning rate."""
    check_rate(options)
    return optimizer_class(trained(model), **options)


def broadcast_model(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Gives every rank rank 0's parameters and buffers, once all have been found to have the same model."""
    group = member(group)
    check_same_model(model, group)
    broadcast_tensors([*model.parameters(), *model.buffers()], group)


def to_model(model: nn.Module, batch: Batch) -> Batch:
    """The batch on the model's device; floating-point inputs in its dtype."""
    like = next(model.parameters())
    inputs, targets = batch
    return inputs.to(like.device, like.dtype if inputs.is_floating_point() else None), targets.to(like.device)


def backward(model: nn.Module, batch: Batch, loss: LossFn, step: int, rank: int) -> float:
    """Forward and backward over one batch; returns its mean loss. ValueError if a gradient is not finite."""
    inputs, targets = to_model(model, batch)
    with span("forward", mb=step):
        value = loss(model(inputs), targets)
    with span("backward", mb=step):
        value.backward()
    require_finite(model, f"rank {rank}, step {step}")
    return value.item()


@dataclass
class Job:
    """The training of one rank.

    Attributes:
        model: a copy, with rank 0's weights. optimizer: over its trained parameters. loss: of (outputs, targets).
        rounds: how often the ranks go round; the same on all of them.
        losses, samples: one entry a round; no samples and a loss of 0 where this rank had no batch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    stream: Iterable[Batch]
    loss: LossFn
    rounds: int
    rank: int
    began_s: float = field(default_factory=time.monotonic)
    sent_before: int = field(default_factory=sent_bytes)
    losses: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def gradients(self, reading: Callable[[], None] = lambda: None) -> Iterator[int]:
        """Leaves in `.grad` the gradients of one batch after another, and yields how many samples each has.

        `reading` is called each time before the weights are read.
        """
        for step, batch in enumerate(padded(self.stream, self.rounds)):
            self.optimizer.zero_grad()
            reading()
            self.losses.append(backward(self.model, batch, self.loss, step, self.rank) if batch else 0.0)
            self.samples.append(len(batch[0]) if batch else 0)
            yield self.samples[-1]

    def record(self, staleness: list[int] | None = None) -> Record:
        """The record of a training that is over, with the losses of the rounds in which this rank had a batch.

        Without `staleness`, none of its gradients was stale.
        """
        losses = [x for x, n in zip(self.losses, self.samples, strict=True) if n]
        seconds, sent = time.monotonic() - self.began_s, sent_bytes() - self.sent_before
        return Record(losses, seconds, [0] * len(losses) if staleness is None else staleness, weights(self.model), sent)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's `state_dict()`, apart from any memory that ranks share."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def start(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    steps: int | None,
    loss: LossFn,
    group: dist.ProcessGroup | None,
    options: dict,
) -> Job:
    """Copies the model, gives it rank 0's weights and agrees on the number of rounds.

    Raises:
        ValueError, TypeError: the models differ between ranks, the learning rate is none, or there are no batches.
    """
    model = deepcopy(model)
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    optimizer = optimizer_of(model, optimizer_class, options)
    stream = own(batches, rank, ranks)
    rounds = agreed_rounds(stream, steps, next(model.parameters()).device, group)
    broadcast_model(model, group)
    return Job(model, optimizer, stream, loss, rounds, rank)
