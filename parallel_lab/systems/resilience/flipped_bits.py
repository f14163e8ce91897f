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

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab import model as models
from parallel_lab.runtime import launch
from parallel_lab.systems.resilience.corruption import compare_replicas, flip, held_by, is_outlier
from parallel_lab.systems.resilience.small_job import AFTER, BEFORE, WEIGHT, Damage, SmallJob, no_damage
from parallel_lab.trace.units import table

PLACES = (BEFORE, AFTER, WEIGHT)
CHECKS: tuple[str, ...] = ("weights", "moments", "finite", "norm", "loss")
_HEADS = dict(zip(PLACES, ("before:", "after:", "weight:"), strict=True))
CLEAN = 40  # steps before the flips, and as many after them in which a finding is a false alarm
Flip = tuple[str, int, int]  # place, bit, seed of the element


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
    found: dict[tuple[str, int], dict[str, int]] = {(place, bit): dict.fromkeys(CHECKS, 0) for place, bit, _ in flips}
    for (place, bit, _), checks in zip(flips, hits, strict=True):
        for check in checks:
            found[place, bit][check] += 1
    return BitTable(found, elements, alarms, CLEAN)


def _flip_all(images: Tensor, labels: Tensor, flips: list[Flip], culprit: int, seed: int) -> tuple:
    """On each rank: trains, then tries each flip; returns what was found of each, and the false alarms."""
    job, alarms = SmallJob(images, labels, seed=seed), dict.fromkeys(CHECKS, 0)
    for _ in range(CLEAN):
        job.step()
    snapshot = job.snapshot()
    for _ in range(CLEAN):
        job.step()
        for check in _checks(job):
            alarms[check] += 1
    hits = []
    for place, bit, element in flips:
        job.restore(snapshot)
        job.damage = _damage(place, bit, element) if dist.get_rank() == culprit else no_damage
        job.step()
        hits.append(_checks(job))
    return hits, alarms


def _damage(place: str, bit: int, element: int) -> Damage:
    def strike(here: str, _: int, tensors: list[Tensor]) -> None:
        if here == place:
            dice = random.Random(f"{place} {element}")
            (victim,) = dice.choices(tensors, weights=[t.numel() for t in tensors])
            flip(victim, dice.randrange(victim.numel()), bit)

    return strike


def _checks(job: SmallJob) -> list[str]:
    """The checks that find something in the last step, or in the loss of the next one, on any rank."""
    weights = held_by(job.net)
    differ = [not compare_replicas(weights).equal]
    differ.append(not compare_replicas(held_by(job.net, job.optimizer)[len(weights) :]).equal)
    with torch.no_grad():
        following = job.loss(job.step_number, dist.get_rank()).detach() / dist.get_world_size()
    dist.all_reduce(following)
    last = job.norms[-1]
    flags = [*differ, not math.isfinite(last), is_outlier(last, job.norms[:-1])]
    anywhere = torch.tensor([*flags, is_outlier(float(following), job.losses)], dtype=torch.float32)
    dist.all_reduce(anywhere, dist.ReduceOp.MAX)
    return [check for check, found in zip(CHECKS, anywhere.tolist(), strict=True) if found]
