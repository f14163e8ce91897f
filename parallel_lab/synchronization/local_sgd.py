"""Local SGD: each rank trains alone for H steps, then the weights are averaged.

Sources: Stich 2019, "Local SGD Converges Fast and Communicates Little", algorithm 1; McMahan et al. 2017,
"Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1 (FederatedAveraging: the mean
counts each client by its samples).

Idea: weights need not meet at every step. Each rank takes H steps of its own optimizer on its own batches; then all
weights are replaced by their mean over ranks, weighted by the samples that each rank has seen since the last meeting.
With H = 1 and plain SGD this is synchronous SGD: the mean of steps is the step of the mean.

Guarantee: for smooth, strongly convex losses the rate of synchronous SGD, as long as H stays small beside the square
root of the steps (Stich, section 2). With momentum or Adam, whose state stays each rank's own, H = 1 is not
synchronous training.
Staleness: 0 at a meeting; between meetings the ranks drift apart, by up to H steps.
Sharded: the batch. Replicated: weights (equal after a meeting only), optimizer state (never equal).
Bytes per step: 2 (n-1)/n (P + 1) / H numbers a rank.
Memory per rank: that of one process, and one flat copy of the weights while they meet.
A slow rank: everyone waits for it, but only at a meeting, so delays that come and go even out over H steps.

Buffers, such as running means, stay each rank's own.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import whole
from parallel_lab.agree.finite import require_finite
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.job import Job, broadcast_model, sent_bytes, start, trained
from parallel_lab.synchronization.mean import start_mean
from parallel_lab.synchronization.record import Record
from parallel_lab.trace.record import span


class LocalSGD:
    """Steps an optimizer and averages the model's weights every `every` steps.

    Every rank calls `step` equally often; one that has no batch left calls `step(samples=0)`.

    Args:
        model: starts from rank 0's weights on all ranks.
        optimizer: over the model's parameters, of any kind.
        every: H, the steps between two meetings.

    Raises:
        TypeError: `every` is no int. ValueError: it is below 1, or this rank has another model than rank 0.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.every = whole("every", every)
        self.model, self.optimizer, self.group = model, optimizer, group
        self.steps = 0  # taken since the start
        self.samples = 0  # seen since the last meeting
        broadcast_model(model, group)

    def step(self, samples: int = 1) -> bool:
        """Takes one step from the gradients in `.grad`, and meets the others if it is time; says whether it met them.

        Args:
            samples: how much this rank counts at the next meeting; with 0 it takes no step.

        Raises:
            ValueError: a gradient is not finite; the weights are left as they were.
        """
        if samples:
            require_finite(self.model, f"rank {dist.get_rank(self.group)}, step {self.steps}")
            with span("update"):
                self.optimizer.step()
        self.samples += samples
        self.steps += 1
        return self.steps % self.every == 0 and self._meet()

    def finish(self) -> None:
        """Averages the weights once more if steps were taken since the last meeting."""
        if self.steps % self.every:
            self._meet()

    @torch.no_grad()
    def _meet(self) -> bool:
        parameters = trained(self.model)
        means = start_mean(parameters, self.samples, self.group).wait()
        for parameter, mean in zip(parameters, means or (), strict=means is not None):
            parameter.copy_(mean)
        self.samples = 0
        return True


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    every: int,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model` with `LocalSGD`; every rank calls it, and all end with the same weights.

    `every` is H; the last round may be shorter. The other arguments and errors are those of `synchronous.train`.
    The losses are those of this rank's own batches at its own weights.
    """
    job = start(model, batches, optimizer_class, steps, loss, group, optimizer_kwargs)
    meeting = LocalSGD(job.model, job.optimizer, every, group)
    return run(job, meeting)


def run(job: Job, meeting: LocalSGD) -> Record:
    """Steps through all rounds of `job`; the bytes of the record are those of the meetings."""
    job.sent_before = sent_bytes()
    for samples in job.gradients():
        meeting.step(samples)
    meeting.finish()
    return job.record()
