"""DiLoCo: local steps of AdamW, and an outer step of Nesterov's momentum on how far they led.

Source: Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models", algorithm 1.

Idea: as in local SGD, each rank trains alone for H inner steps. What the ranks then average is not the weights but the
*outer gradient*, theta_old - theta, the way back from where a rank has got to; an outer optimizer takes one step on
their mean. Its momentum carries the common direction of earlier rounds on, which lets H grow to hundreds of steps.

    delta = mean over ranks of (theta_old - theta)
    m     = mu m + delta
    theta = theta_old - lr (delta + mu m)          Nesterov; the paper takes lr = 0.7, mu = 0.9

With lr = 1 and mu = 0 the outer step is the mean of the weights: local SGD.

Guarantee: none proven; in the paper's runs with 8 workers and H = 500 it came close to synchronous training, and
sent 500 times less.
Staleness: 0 at a meeting; between meetings the ranks drift apart, by up to H steps.
Sharded: the batch. Replicated: weights, theta_old and m (equal on all ranks), inner optimizer state (each its own).
Bytes per step: 2 (n-1)/n (P + 1) / H numbers a rank.
Memory per rank: that of one process, and 2 P numbers for theta_old and m.
A slow rank: everyone waits for it once in H steps.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import number
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.job import start, trained
from parallel_lab.synchronization.local_sgd import LocalSGD, run
from parallel_lab.synchronization.mean import start_mean
from parallel_lab.synchronization.outer import outer_step
from parallel_lab.synchronization.record import Record


class DiLoCo(LocalSGD):
    """Steps the inner optimizer, and every `every` steps the outer one; used like `LocalSGD`.

    Args:
        model: starts from rank 0's weights on all ranks.
        optimizer: the inner one, over the model's parameters; AdamW in the paper.
        outer_lr, outer_momentum: of the outer step; momentum in [0, 1).
        every: H, the inner steps between two outer ones.

    Raises:
        TypeError: a number is of the wrong type. ValueError: it is out of range, or this rank has another model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        outer_lr: float = 0.7,
        outer_momentum: float = 0.9,
        every: int = 500,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.outer_lr = number("outer_lr", outer_lr)
        self.outer_momentum = number("outer_momentum", outer_momentum)
        if self.outer_momentum >= 1:
            raise ValueError(f"outer_momentum={outer_momentum}: expected less than 1, or it never decays")
        super().__init__(model, optimizer, every, group)
        self.old = [p.detach().clone() for p in trained(model)]  # theta_old, the weights of the last meeting
        self.momentum = [torch.zeros_like(p) for p in self.old]

    @torch.no_grad()
    def _meet(self) -> bool:
        parameters = trained(self.model)
        outer = [old - p for old, p in zip(self.old, parameters, strict=True)]
        deltas = start_mean(outer, self.samples, self.group).wait()
        self.samples = 0
        if deltas is None:  # nobody has taken a step
            return True
        for parameter, old, m, delta in zip(parameters, self.old, self.momentum, deltas, strict=True):
            outer_step(old, m, delta.to(old.dtype), self.outer_lr, self.outer_momentum)
            parameter.copy_(old)
        return True


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    every: int,
    outer_lr: float = 0.7,
    outer_momentum: float = 0.9,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model` with `DiLoCo`; every rank calls it, and all end with the same weights.

    `optimizer_class` and `optimizer_kwargs` make the inner optimizer; `every` is H, and the last round may be shorter.
    The other arguments and errors are those of `synchronous.train`.
    """
    job = start(model, batches, optimizer_class, steps, loss, group, optimizer_kwargs)
    meeting = DiLoCo(job.model, job.optimizer, outer_lr, outer_momentum, every, group)
    return run(job, meeting)
