"""One gradient of a global batch, whoever did which part of it: the parts count by their samples or tokens.

Every way to balance is here an iterable of the numbers of microbatches that this rank does: a static share is a range,
a queue of work and a thief find the next number when it is needed. Each rank adds up the gradient of the *sum* of its
losses. Then one all-reduce, of all gradients and one count, gives sum of gradients / sum of counts: the gradient of the
mean over the global batch, as in one process, whatever each rank did (`synchronization`'s weighted mean). A rank that
did nothing takes part with zeros.

The exchange comes once, after all microbatches. So ranks may do unlike numbers of them. Where each microbatch exchanges
something (ZeRO-3 and FSDP gather weights, tensor and expert parallelism exchange in their layers), all ranks must do
equally many, or they wait for each other for ever: there a cut can only even out what stands in the microbatches.

DDP divides by the number of ranks instead: the mean of means, which gives a rank with few samples as much to say as one
with many.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.model.data import Batch
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss, mean_loss
from parallel_lab.synchronization.replicas import trained, weighted_mean
from parallel_lab.systems.balance.device import Device
from parallel_lab.trace import span, tag


@dataclass
class Done:
    """What this rank did of a batch.

    Attributes:
        items: the numbers of its microbatches, in the order in which it did them.
        units: the units of work in them.
        weight: the samples or tokens in them.
        busy_s: how long that took, without waiting for others.
    """

    items: list[int] = field(default_factory=list)
    units: int = 0
    weight: float = 0.0
    busy_s: float = 0.0


def shared_gradient(
    model: nn.Module,
    microbatches: Sequence[Batch],
    mine: Iterable[int],
    *,
    loss: Loss = cross_entropy,
    units: Sequence[int] | None = None,
    device: Device | None = None,
    group: dist.ProcessGroup | None = None,
) -> Done:
    """Puts the gradient of the mean over all `microbatches` into `.grad`, of which this rank computes those of `mine`.

    Args:
        model: the same on all ranks.
        microbatches: of the global batch, the same list on all ranks; they may be of any size and length.
        mine: the numbers of this rank's; over all ranks each number comes once.
        loss: of (outputs, targets), a mean, or a tuple (sum, count).
        units: how many units of work each microbatch is for the emulated device, one by default.
        device: an emulated device, which does these units beside what the model computes.
        group: whose ranks share the batch; by default all.
    """
    done = Done()
    model.zero_grad()
    for number in mine:
        began_s = time.perf_counter()
        with span("work", mb=number):
            mean, weight = mean_loss(model, microbatches[number], loss)
            (mean * weight).backward()
            cost = units[number] if units else 1
            if device:
                device.work(cost)
        done.items.append(number)
        done.units, done.weight = done.units + cost, done.weight + weight
        done.busy_s += time.perf_counter() - began_s
    _average(model, done.weight, group)
    return done


def _average(model: nn.Module, weight: float, group: dist.ProcessGroup | None) -> None:
    """Makes of the sums in `.grad` the mean over the samples of all ranks, of which this rank has `weight`."""
    parameters = trained(model)
    sums = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    with tag(part=0, phase="step"):
        means = weighted_mean([each / (weight or 1) for each in sums], weight, group)
    for parameter, gradient in zip(parameters, means or sums, strict=True):
        parameter.grad = gradient.to(parameter.dtype)
