"""Hogwild: all ranks update the same weights in shared memory, without a lock.

Source: Recht, Re, Wright, Niu 2011, "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent",
section 2 and algorithm 1; proposition 4.1.

Idea: the weights lie in memory that every rank maps. Each rank reads them, computes a gradient of its own batch and
subtracts its step, whatever the others are doing. Nobody waits for anybody and nothing is sent.

Guarantee: near-linear speed-up for convex losses whose gradients are *sparse*, so that updates seldom touch the same
weights, and if each number is added to atomically. Neural networks have dense gradients and torch does not add
atomically, so an update can be lost in part where two ranks write at once; it works in practice with few ranks.
Staleness: about n - 1 with n equally fast ranks. A rank may even read weights that are half old and half new.
Sharded: the batch. Shared: the weights, once for all ranks. Each rank's own: gradients, optimizer state.
Bytes per step: 0 through the network; the memory bus carries them.
Memory: P numbers for all ranks together, and gradients and optimizer state for each.
A slow rank: nobody waits for it; its gradients are staler than the others'.

A gradient is one rank's, not a mean over ranks: n ranks take n small steps where synchronous SGD takes one.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import LossFn
from parallel_lab.synchronization.batches import Source, count, own
from parallel_lab.synchronization.job import Job, broadcast_model, optimizer_of, trained
from parallel_lab.synchronization.record import Record
from parallel_lab.synchronization.shared import shared_zeros
from parallel_lab.trace.record import span


@torch.no_grad()
def share_parameters(model: nn.Module, group: dist.ProcessGroup | None = None) -> Tensor:
    """Moves the trained parameters of `model` into memory that all ranks share, with rank 0's values.

    From here on a write by one rank is read by all. Frozen parameters and buffers stay each rank's own. Returns the
    flat shared tensor (P,). Every rank calls it.

    Raises:
        ValueError: this rank's model differs from rank 0's, is not on the CPU, or mixes dtypes.
    """
    parameters = trained(model)
    kinds = sorted({f"{p.dtype} on {p.device.type}" for p in parameters})
    if len(kinds) != 1 or not kinds[0].endswith(" on cpu"):
        found = ", ".join(kinds) or "none"
        raise ValueError(f"hogwild needs trained parameters of one dtype on the CPU, and found {found}")
    broadcast_model(model, group)
    flat = shared_zeros(sum(p.numel() for p in parameters), parameters[0].dtype, group)
    if dist.get_rank(group) == 0:
        flat.copy_(torch.cat([p.flatten() for p in parameters]))
    for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = piece.view(parameter.shape)
    dist.barrier(group)  # nobody reads before rank 0 has written
    return flat


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    steps: int | None = None,
    loss: LossFn = cross_entropy,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs,
) -> Record:
    """Trains a copy of `model` on the weights that all ranks share; every rank calls it, on one machine.

    `steps` counts the steps of each rank. The record holds this rank's losses, and for each of its gradients how many
    updates the others finished between the reading of the weights and the end of its own update. The other arguments
    and errors are those of `synchronous.train`; a gradient that is not finite never reaches the shared weights.
    """
    model, rank, ranks = deepcopy(model), dist.get_rank(group), dist.get_world_size(group)
    optimizer = optimizer_of(model, optimizer_class, optimizer_kwargs)
    stream = own(batches, rank, ranks)
    rounds = count(stream, steps)
    share_parameters(model, group)
    # One counter a rank, written by that rank alone: then no count can be lost, although nothing is locked.
    applied = shared_zeros(ranks, torch.int64, group)
    dist.barrier(group)
    job = Job(model, optimizer, stream, loss, rounds, rank)
    staleness = _run(job, applied)
    dist.barrier(group)  # the weights are final once every rank has stopped writing
    return job.record(staleness)


def _run(job: Job, applied: Tensor) -> list[int]:
    """Reads, computes and writes without asking anybody; returns the staleness of each of this rank's gradients."""
    seen, staleness = [], []
    for samples in job.gradients(reading=lambda: seen.append(_others(applied, job.rank))):
        if samples:
            with span("update"):
                job.optimizer.step()
            staleness.append(_others(applied, job.rank) - seen[-1])
            applied[job.rank] += 1
    return staleness


def _others(applied: Tensor, rank: int) -> int:
    """How many updates the other ranks have made until now."""
    return int(applied.sum() - applied[rank])
