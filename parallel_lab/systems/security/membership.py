"""Who was in the training set? An attack by the loss, and what differential privacy leaves of it.

A model has a lower loss on samples that it was trained on (Yeom et al. 2018). It shows most on samples that cannot be
learned from others: *canaries*, here images with a wrong label. Half of the canaries are put into the training set; the
attacker has the model and all canaries, and says "was in" where the loss is low. Over all thresholds the best hits less
false alarms is the *advantage*: 0 for guessing, 1 for knowing. DP-SGD bounds it (`private.advantage`), of one canary;
the measured advantage of many is an estimate of it, with a spread, and no proof.

A low measured advantage proves nothing by itself: clipping and few steps lower it without any noise. The bound is what
noise adds.

The threshold is chosen on the same canaries that it is judged by, so the figure is somewhat too high: that of losses
drawn at random is above 0 as well, which is what `chance` gives.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Canaries(NamedTuple):
    """Images with wrong labels: those `inside` the training set, and as many `outside`."""

    inside: tuple[Tensor, Tensor]
    outside: tuple[Tensor, Tensor]


def plant(images: Tensor, labels: Tensor, canaries: int, seed: int = 0) -> tuple[tuple[Tensor, Tensor], Canaries]:
    """The training set with `canaries` wrong labels in it, and the canaries; as many images are left out of it."""
    dice = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=dice)
    chosen, rest = order[: 2 * canaries], order[2 * canaries :]
    wrong = (labels[chosen] + torch.randint(1, 10, (len(chosen),), generator=dice)) % 10
    inside = images[chosen[:canaries]], wrong[:canaries]
    data = torch.cat([inside[0], images[rest]]), torch.cat([inside[1], labels[rest]])
    return data, Canaries(inside, (images[chosen[canaries:]], wrong[canaries:]))


def losses(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of each sample."""
    with torch.no_grad():
        return F.cross_entropy(model(data[0]), data[1], reduction="none")


def advantage(inside: Tensor, outside: Tensor) -> float:
    """The best hits less false alarms over all thresholds: "was in" is said where the loss is at most the threshold."""
    thresholds = torch.cat([inside, outside])[:, None]
    return float(((inside <= thresholds).double().mean(1) - (outside <= thresholds).double().mean(1)).max())


def attack(model: nn.Module, canaries: Canaries) -> float:
    """The advantage of the attack on a model."""
    return advantage(losses(model, canaries.inside), losses(model, canaries.outside))


def chance(canaries: int, draws: int = 200, seed: int = 0) -> float:
    """The mean advantage of losses that know nothing, for so many canaries inside and outside."""
    dice = torch.Generator().manual_seed(seed)
    rows = torch.rand(draws, 2, canaries, generator=dice)
    return sum(advantage(inside, outside) for inside, outside in rows) / draws
