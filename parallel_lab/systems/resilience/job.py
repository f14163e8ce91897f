"""A small data-parallel training that can be killed at any moment, and goes on from its newest whole checkpoint.

It predicts the next byte of real text from the eight before it. On the same number of ranks a run that was killed ends
with the same weights, bit by bit, as one that was not: weights, moments, position and every rank's random generators
come back. On another number of ranks the global batches are the same, in the same order, each sample once; the sums of
gradients are added up in another order, so the weights agree to rounding.

A save is one file a rank: all have their generators in it, and rank 0 has the weights and moments as well, since in
plain data parallelism they are the same on all ranks.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from parallel_lab import model as lab_model
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.goodput import note
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.state import random_states, set_random_states

CONTEXT, SAMPLES = 8, 2000


def network(seed: int = 0, hidden: int = 32, dropout: float = 0.0) -> nn.Sequential:
    """The model: eight bytes to the scores of the next one."""
    torch.manual_seed(seed)
    layers = (nn.Linear(CONTEXT * 8, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 256))
    return nn.Sequential(nn.Embedding(256, 8), nn.Flatten(), *layers)


def windows(indices: Tensor) -> tuple[Tensor, Tensor]:
    """The samples of these numbers: the bytes, int64 (count, 8), and the byte after them (count,)."""
    found = lab_model.text()[indices[:, None] * (CONTEXT + 1) + torch.arange(CONTEXT + 1)].long()
    return found[:, :-1], found[:, -1]


@dataclass(frozen=True)
class Outcome:
    """What a rank returns."""

    first: int  # the step that it began with
    losses: list[float]  # the mean over the global batch, step by step
    weights: Tensor  # all parameters in one vector


@dataclass(frozen=True)
class Job:
    """Called on each rank of a launch, it trains to the end.

    Args:
        where: the folder of its checkpoints.
        steps: when it has finished.
        every: steps between two saves; 0 for none.
        batch: samples of a step, of all ranks together.
        seed: of the weights and of the order.
        dropout: a rank's own generator draws it.
        log: a file for `goodput`.
        hook: called on each rank at `begin` of a step, and `saving` when its files are written but nobody can see them.
    """

    where: str
    steps: int = 20
    every: int = 5
    batch: int = 48
    seed: int = 0
    dropout: float = 0.0
    log: str = ""
    hook: Callable[[str, int], None] | None = None

    def __call__(self) -> Outcome:
        """Trains from the newest whole checkpoint to the end."""
        net = network(self.seed, dropout=self.dropout)
        torch.manual_seed(self.seed * 1000 + dist.get_rank())
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
        first = self.load(net, optimizer)
        order, losses = Order(SAMPLES, self.seed), []
        self._note("ready", first)
        for step in range(first, self.steps):
            self._tell("begin", step)
            losses.append(self.step(net, optimizer, order, step))
            self._note("step", step)
            if self.every and (step + 1) % self.every == 0:
                self._note("save", step)
                self.save(net, optimizer, step + 1)
                self._note("saved", step)
        return Outcome(first, losses, parameters_to_vector(net.parameters()).detach())

    def step(self, net: nn.Module, optimizer: torch.optim.Optimizer, order: Order, step: int) -> float:
        """One step on this rank's share of the global batch; returns the loss over all of it."""
        share = order.take(step * self.batch, self.batch, rank=dist.get_rank(), ranks=dist.get_world_size())
        flat = contribution(net, share, self.batch)
        dist.all_reduce(flat)
        take_gradients(net, flat)
        optimizer.step()
        return float(flat[-1])

    def save(self, net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Writes a checkpoint of all ranks; it is seen once it is whole."""
        rank, ranks = dist.get_rank(), dist.get_world_size()
        content: dict[str, Any] = {"random": random_states()}
        if rank == 0:
            content |= {"weights": net.state_dict(), "optimizer": optimizer.state_dict()}
        with folder.writing(self.where) if rank == 0 else contextlib.nullcontext() as made:
            told = [str(made)]
            dist.broadcast_object_list(told)
            partial = Path(told[0])
            stamps: list[Any] = [None] * ranks
            dist.all_gather_object(stamps, tuple(folder.write(partial / folder.shard(rank), content)))
            self._tell("saving", step)
            if rank == 0:
                files = {folder.shard(each): stamp for each, stamp in enumerate(stamps)}
                folder.write(partial / folder.INDEX, {"files": files, "step": step, "ranks": ranks})
                folder.publish(partial, step, keep=1)

    def load(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Goes back to the newest whole checkpoint; returns the step that comes next, 0 where there is none."""
        found = [str(folder.latest_whole(self.where) or "") if dist.get_rank() == 0 else ""]
        dist.broadcast_object_list(found)  # all take the same one, whatever is written meanwhile
        if not found[0]:
            return 0
        checkpoint = Path(found[0])
        whole = folder.read(checkpoint / folder.shard(0))
        net.load_state_dict(whole["weights"])
        optimizer.load_state_dict(whole["optimizer"])
        index = folder.read(checkpoint / folder.INDEX)
        if dist.get_rank() < index["ranks"]:
            set_random_states(folder.read(checkpoint / folder.shard(dist.get_rank()))["random"])
        return index["step"]

    def _note(self, what: str, step: int) -> None:
        if dist.get_rank() == 0:
            note(self.log, what, step)

    def _tell(self, what: str, step: int) -> None:
        if self.hook:
            self.hook(what, step)


def contribution(net: nn.Module, share: Tensor, batch: int) -> Tensor:
    """What these samples add to the gradient of a global batch of `batch`, in one vector, and to its loss, at the end.

    Summed over ranks it is the mean over the batch, also where shares are uneven.
    """
    bytes_, targets = windows(share)
    loss = nn.functional.cross_entropy(net(bytes_), targets, reduction="sum") / batch
    net.zero_grad()
    loss.backward()
    return torch.cat([*(p.grad.reshape(-1) for p in net.parameters() if p.grad is not None), loss.detach()[None]])


def take_gradients(net: nn.Module, flat: Tensor) -> None:
    """Gives each parameter its part of `flat` as its gradient."""
    parameters = [p for p in net.parameters() if p.grad is not None]
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters] + [1]), strict=False):
        parameter.grad = part.view_as(parameter).clone()


def newest(where: str | os.PathLike) -> int:
    """The step of the newest complete checkpoint; 0 where there is none."""
    found = folder.latest(where)
    return int(found.name.split("-step-")[1]) if found else 0
