"""A small data-parallel training on the digits that can be damaged at named places and taken back to any step.

Experiments with faults share it: which check finds a flipped bit, where a loss spike comes from. Its global batches are
drawn from the step's number alone, so that a step may be repeated, or made with another step's batch.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab import model as models
from parallel_lab.systems.resilience.corruption import norm

INPUT, BEFORE, AFTER = "input of the forward pass", "gradient before the all-reduce", "gradient after the all-reduce"
WEIGHT = "weight after the step"
WIDTHS, BATCH, RATE = (64, 32, 10), 64, 3e-3
Damage = Callable[[str, int, list[Tensor]], None]  # is shown the place, the step, and the tensors of that place


def no_damage(place: str, step: int, tensors: list[Tensor]) -> None:
    """Leaves everything as it is."""


class Step(NamedTuple):
    """What a rank notes of a step.

    Attributes:
        loss: of the global batch, before the update.
        norm: of the averaged gradient.
        layers: the norm of each parameter's averaged gradient, by name.
        update: the root mean square of the change of the weights.
        rate: the learning rate.
    """

    loss: float
    norm: float
    layers: dict[str, float]
    update: float
    rate: float


class SmallJob:
    """Training on this rank.

    Args:
        images: all of them, (count, 64).
        labels: theirs.
        seed: of the weights and the batches.
        damage: strikes at the places on the way of a step.
        rate: the learning rate of each step.
        poison: the step whose batch is bad, as of images that were read in another format; -1 for none.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int = 0,
        damage: Damage = no_damage,
        rate: Callable[[int], float] = lambda _: RATE,
        poison: int = -1,
    ) -> None:
        self.images, self.labels, self.seed, self.damage, self.rate = images, labels, seed, damage, rate
        self.poison = poison
        self.net = models.build(WIDTHS, seed=seed)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=RATE)
        self.step_number = 0
        self.notes: list[Step] = []

    def batch(self, step: int, share: int) -> tuple[Tensor, Tensor]:
        """One rank's share of the global batch of `step`."""
        dice = torch.Generator().manual_seed(100_003 * self.seed + step)
        mine = torch.randint(len(self.labels), (BATCH,), generator=dice)[
            models.share(BATCH, share, dist.get_world_size())
        ]
        return self.images[mine] * (255.0 if step == self.poison else 1.0), self.labels[mine]

    def loss(self, batch: int, share: int) -> Tensor:
        """The mean loss of a share of the batch of step `batch`, with what a damage makes of its input on this rank."""
        images, labels = self.batch(batch, share)
        self.damage(INPUT, self.step_number, [images])
        return nn.functional.cross_entropy(self.net(images), labels)

    def gradients(self, batch: int, share: int) -> list[Tensor]:
        """The gradient of `loss`, with what a damage makes of it on this rank."""
        self.optimizer.zero_grad()
        self.last_loss = self.loss(batch, share)
        self.last_loss.backward()
        found = [p.grad for p in self.net.parameters() if p.grad is not None]
        self.damage(BEFORE, self.step_number, found)
        return found

    def step(self, batch: int | None = None) -> Step:
        """One step, with the batch of another step if that is given."""
        gradients = self.gradients(self.step_number if batch is None else batch, dist.get_rank())
        flat = torch.cat([*(g.reshape(-1) for g in gradients), self.last_loss.detach().reshape(1)])
        flat /= dist.get_world_size()
        dist.all_reduce(flat)
        for gradient, mean in zip(gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        self.damage(AFTER, self.step_number, gradients)
        layers = {name: norm([p.grad]) for name, p in self.net.named_parameters() if p.grad is not None}
        rate = self.rate(self.step_number)
        update = self._update(rate)
        self.damage(WEIGHT, self.step_number, list(self.net.parameters()))
        self.step_number += 1
        self.notes.append(Step(float(flat[-1]), norm(gradients), layers, update, rate))
        return self.notes[-1]

    def _update(self, rate: float) -> float:
        """Makes the optimizer's step; the root mean square of the change."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        before = [p.detach().clone() for p in self.net.parameters()]
        self.optimizer.step()
        change = norm(p.detach() - b for p, b in zip(self.net.parameters(), before, strict=True))
        return change / sum(b.numel() for b in before) ** 0.5

    @property
    def losses(self) -> list[float]:
        """The losses so far."""
        return [note.loss for note in self.notes]

    @property
    def norms(self) -> list[float]:
        """The norms so far."""
        return [note.norm for note in self.notes]

    def snapshot(self) -> tuple:
        """A checkpoint in memory."""
        return copy.deepcopy((self.net.state_dict(), self.optimizer.state_dict(), self.step_number, self.notes))

    def restore(self, snapshot: tuple) -> None:
        """Goes back to a checkpoint."""
        weights, moments, self.step_number, self.notes = copy.deepcopy(snapshot)
        self.net.load_state_dict(weights)
        self.optimizer.load_state_dict(moments)


def largest(values: Sequence[float]) -> int:
    """Where the largest value stands; NaN counts as larger than any."""
    return max(range(len(values)), key=lambda k: float("inf") if values[k] != values[k] else values[k])
