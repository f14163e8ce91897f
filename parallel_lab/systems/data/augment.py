"""Augmentation: a copy of a sample that was changed in a way that must not change its label.

An image of a digit may be shifted or turned a little. Mirrored, a 2 is no digit; turned by 180 degrees, a 6 is a 9. So
the same operation helps one data set and harms another: it must keep the label, and what it makes must look like what
the test has. `trial` measures it on real digits. For text there is no mirror at all: `reversed_order` makes another
language of it.

All functions take images (count, side, side) and give as many back.
"""

from collections.abc import Callable
from math import pi
from statistics import mean, stdev
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Augment = Callable[[Tensor, torch.Generator], Tensor]


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images as they are."""
    return images


def shifted(images: Tensor, generator: torch.Generator, most: int = 1) -> Tensor:
    """Each image moved by up to `most` pixels each way; what comes in from the edge is empty."""
    count, side, _ = images.shape
    padded = F.pad(images, (most,) * 4)
    corners = torch.randint(2 * most + 1, (2, count), generator=generator)
    rows, columns = corners[:, :, None] + torch.arange(side)  # each (count, side)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def rolled(images: Tensor, generator: torch.Generator, most: int = 1) -> Tensor:
    """As `shifted`, but what leaves at one edge comes in at the other: the wrong way to shift."""
    count, side, _ = images.shape
    corners = torch.randint(-most, most + 1, (2, count), generator=generator)
    rows, columns = (corners[:, :, None] + torch.arange(side)) % side
    return images[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def rotated(images: Tensor, generator: torch.Generator, degrees: float = 10.0) -> Tensor:
    """Each image turned by up to `degrees` either way, with linear interpolation."""
    angle = (2 * torch.rand(len(images), generator=generator) - 1) * degrees * pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)  # (count, 2, 3)
    grid = F.affine_grid(turn, [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def _half(images: Tensor, generator: torch.Generator, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` for each image with probability 1/2."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None], change(images), images)


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images with left and right exchanged."""
    return _half(images, generator, lambda one: one.flip(2))


def upside_down(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images with top and bottom exchanged."""
    return _half(images, generator, lambda one: one.flip(1))


def half_turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images turned by 180 degrees."""
    return _half(images, generator, lambda one: one.flip(1, 2))


def dense(side: int) -> nn.Sequential:
    """Two linear layers: a pixel that moves is another input."""
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 64), nn.ReLU(), nn.Linear(64, 10))


def convolution(side: int) -> nn.Sequential:
    """Two convolutions and a linear layer: what moves a little is still found."""
    first = nn.Sequential(nn.Unflatten(1, (1, side)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*first, nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * side**2, 10))


def _initialize(model: nn.Module, generator: torch.Generator) -> None:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
        else:
            nn.init.zeros_(parameter)


class Trial(NamedTuple):
    """What came of one training."""

    accuracy: float  # on test images, which are never changed
    sixes_and_nines: float  # the share of the test's 6 and 9 that are taken for each other


def trial(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    augment: Augment = unchanged,
    seed: int = 0,
    network: Callable[[int], nn.Module] = convolution,
    steps: int = 300,
    batch: int = 32,
) -> Trial:
    """Trains a small network on augmented images and looks at the test.

    Args:
        train: images (count, side, side) and labels (count,).
        test: the same of the test.
        augment: changes each batch anew.
        seed: of weights, batches and augmentation.
        network: makes the model for images of this side.
        steps: of Adam.
        batch: images of a step.
    """
    (images, labels), generator = train, torch.Generator().manual_seed(seed)
    model = network(images.shape[1])
    _initialize(model, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(augment(images[chosen], generator)), labels[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        found, right = model(test[0]).argmax(1), test[1]
    both = (right == 6) | (right == 9)
    return Trial(float((found == right).double().mean()), float((found[both] == 15 - right[both]).double().mean()))


class Spread(NamedTuple):
    """What several seeds gave."""

    accuracies: list[float]
    mean: float
    deviation: float  # of one seed from another, over one less than the seeds
    sixes_and_nines: float  # mean


def trials(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    augment: Augment,
    seeds: int = 5,
    network: Callable[[int], nn.Module] = convolution,
) -> Spread:
    """`trial` with the seeds 0 to `seeds - 1`."""
    found = [trial(train, test, augment, seed, network) for seed in range(seeds)]
    accuracies = [one.accuracy for one in found]
    return Spread(accuracies, mean(accuracies), stdev(accuracies), mean(one.sixes_and_nines for one in found))


def reversed_order(text: bytes) -> bytes:
    """The bytes of `text` from its end to its beginning."""
    return text[::-1]
