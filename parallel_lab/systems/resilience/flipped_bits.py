"""Which check finds which flipped bit: a small data-parallel training in which each of the 32 bits is really flipped.

One bit of one float32 number is flipped on one rank, in one of three places: in its gradient before the all-reduce, in
its copy of the averaged gradient, or in a weight after the step. Five checks look at that step and at the next loss:

    weights    their checksums, compared over the ranks after the step
    moments    those of Adam's moments
    finite     NaN or infinity in the averaged gradient
    norm       the norm of the averaged gradient is an outlier among those of the steps before
    loss       the loss of the next step is

The numbers are those of this model and this moment of its training. What does not depend on them: a flip before the
all-reduce never shows in the replicas; a flip after it shows there unless rounding swallows it, which leaves no damage.
"""

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab import model as models
from parallel_lab.runtime import launch
from parallel_lab.systems.resilience.corruption import compare_replicas, flip, held_by, is_outlier, norm
from parallel_lab.trace.units import table

PLACES = ("gradient before the all-reduce", "gradient after the all-reduce", "weight after the step")
CHECKS = ("weights", "moments", "finite", "norm", "loss")
_HEADS = dict(zip(PLACES, ("before:", "after:", "weight:"), strict=True))
WIDTHS, BATCH, CLEAN = (64, 32, 10), 64, 40
Flip = tuple[str, int, int]  # place, bit, seed of the element
Damage = Callable[[str, list[Tensor]], None]  # is shown the tensors of a place


def _nothing(place: str, tensors: list[Tensor]) -> None:
    """No damage."""


class Training:
    """Data-parallel training on the digits, on this rank, that can be taken back to a step."""

    def __init__(self, images: Tensor, labels: Tensor, seed: int) -> None:
        self.images, self.labels, self.seed = images, labels, seed
        self.net = models.build(WIDTHS, seed=seed)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=3e-3)
        self.losses: list[float] = []
        self.norms: list[float] = []

    def loss(self, step: int) -> Tensor:
        """The loss of this rank's share of the batch of `step`."""
        chosen = torch.randint(len(self.labels), (BATCH,), generator=torch.Generator().manual_seed(10_000 + step))
        mine = chosen[models.share(BATCH, dist.get_rank(), dist.get_world_size())]
        return nn.functional.cross_entropy(self.net(self.images[mine]), self.labels[mine])

    def step(self, step: int, damage: Damage = _nothing) -> None:
        """One step of training; `damage` is shown each place on its way."""
        self.optimizer.zero_grad()
        loss = self.loss(step)
        loss.backward()
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        damage(PLACES[0], gradients)
        flat = torch.cat([*(g.reshape(-1) for g in gradients), loss.detach().reshape(1)]) / dist.get_world_size()
        dist.all_reduce(flat)
        for gradient, mean in zip(gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        damage(PLACES[1], gradients)
        self.losses.append(float(flat[-1]))
        self.norms.append(norm(gradients))
        self.optimizer.step()
        damage(PLACES[2], list(self.net.parameters()))

    def snapshot(self) -> tuple:
        """What `restore` goes back to."""
        state = self.net.state_dict(), self.optimizer.state_dict(), self.losses, self.norms
        return copy.deepcopy(state)

    def restore(self, snapshot: tuple) -> None:
        """Goes back."""
        weights, moments, losses, norms = copy.deepcopy(snapshot)
        self.net.load_state_dict(weights)
        self.optimizer.load_state_dict(moments)
        self.losses, self.norms = losses, norms


@dataclass(frozen=True)
class BitTable:
    """How many of the flips of each place and bit each check found. Its text is the table.

    Attributes:
        found: for (place, bit) the number of flips found, by check.
        tried: how many flips there were of each place and bit.
        false_alarms: how often a check found something in the steps without a flip.
        clean: how many steps those were.
    """

    found: dict[tuple[str, int], dict[str, int]]
    tried: int
    false_alarms: dict[str, int]
    clean: int

    def missed(self, place: str, bit: int) -> bool:
        """Whether no check found a single flip of this place and bit."""
        return not any(self.found[place, bit].values())

    def __str__(self) -> str:
        bits = sorted({bit for _, bit in self.found}, reverse=True)
        columns = {"bit": [str(bit) for bit in bits], "part": list(map(_part, bits))}
        for place in PLACES:
            columns |= {
                f"{_HEADS[place]} {check}": [str(self.found[place, bit][check]) for bit in bits]
                for check in CHECKS
                if any(self.found[place, bit][check] for bit in bits)
            }
        alarms = ", ".join(f"{check} {count}" for check, count in self.false_alarms.items())
        legend = "; ".join(f"{head} flipped in a {place}" for place, head in _HEADS.items())
        found = f"found of {self.tried} each; false alarms in {self.clean} clean steps: {alarms}"
        return f"{table(columns)}\n{legend}\n{found}"


def _part(bit: int) -> str:
    return "sign" if bit == 31 else "exponent" if bit > 22 else "mantissa"


def bit_table(
    bits: Sequence[int] = range(32), *, elements: int = 4, ranks: int = 4, culprit: int = 2, seed: int = 0
) -> BitTable:
    """Flips each of `bits` in each place on rank `culprit`, in `elements` numbers drawn by `seed`; see the file's head.

    One launch serves all flips: each starts from the same 40th step.
    """
    flips = [(place, bit, seed + k) for place in PLACES for bit in bits for k in range(elements)]
    images, labels = models.digit_images()
    run = launch(_flip_all, images, labels, flips, culprit, seed, ranks=ranks, device="cpu", record=False, timeout=300)
    hits, alarms = run[0]
    found = {(place, bit): dict.fromkeys(CHECKS, 0) for place, bit, _ in flips}
    for (place, bit, _), checks in zip(flips, hits, strict=True):
        for check in checks:
            found[place, bit][check] += 1
    return BitTable(found, elements, alarms, CLEAN)


def _flip_all(images: Tensor, labels: Tensor, flips: list[Flip], culprit: int, seed: int) -> tuple:
    """On each rank: trains, then tries each flip; returns what was found of each, and the false alarms."""
    training, alarms = Training(images, labels, seed), dict.fromkeys(CHECKS, 0)
    for step in range(2 * CLEAN):
        training.step(step)
        if step == CLEAN - 1:
            snapshot = training.snapshot()
        if step >= CLEAN:
            for check in _checks(training, step, with_loss=False):
                alarms[check] += 1
    hits = []
    for place, bit, element in flips:
        training.restore(snapshot)
        training.step(CLEAN, _damage(place, bit, element) if dist.get_rank() == culprit else _nothing)
        hits.append(_checks(training, CLEAN))
    return hits, alarms


def _damage(place: str, bit: int, element: int) -> Damage:
    def strike(here: str, tensors: list[Tensor]) -> None:
        if here == place:
            dice = random.Random(f"{place} {element}")
            (victim,) = dice.choices(tensors, weights=[t.numel() for t in tensors])
            flip(victim, dice.randrange(victim.numel()), bit)

    return strike


def _checks(training: Training, step: int, with_loss: bool = True) -> list[str]:
    """The checks that find something after `step`, on any rank."""
    weights = held_by(training.net)
    differ = [not compare_replicas(weights).equal]
    differ.append(not compare_replicas(held_by(training.net, training.optimizer)[len(weights) :]).equal)
    norms, losses = training.norms, training.losses
    with torch.no_grad():
        following = training.loss(step + 1).detach() / dist.get_world_size()
    dist.all_reduce(following)
    loss = is_outlier(float(following), losses) if with_loss else is_outlier(losses[-1], losses[:-1])
    flags = [*differ, not math.isfinite(norms[-1]), is_outlier(norms[-1], norms[:-1]), loss]
    anywhere = torch.tensor(flags, dtype=torch.float32)
    dist.all_reduce(anywhere, dist.ReduceOp.MAX)
    return [check for check, found in zip(CHECKS, anywhere.tolist(), strict=True) if found]
