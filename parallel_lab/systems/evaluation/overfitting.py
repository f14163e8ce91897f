"""Overfitting, seen and treated, in two small experiments with seeds.

    repeated(epochs)        a byte GPT that always reads as many bytes: one text once, or a shorter one more often
    treated(Treatment(...)) an MLP on few handwritten digits, with what is usually done against overfitting

A run has three sets. It is trained on the first; the *validation* set says when early stopping stops, which weight
decay is best and so on; the *test* set is reported and chooses nothing, for what was chosen on a set looks better on it
than it is. A seed decides data, initialization and order, so two treatments with one seed differ in the treatment
alone: compare them seed by seed.

All losses are cross-entropies in nats (of the GPT bits per byte) against the true labels, in the model's evaluation
mode. What the optimizer minimizes can be another number. With label smoothing the target has 1 - smoothing +
smoothing/classes for the true class and smoothing/classes for each other, so the least possible is the entropy of that
and not 0: the two are not comparable.

Sources: Muennighoff et al. 2023, "Scaling data-constrained language models"; Szegedy et al. 2016, "Rethinking the
Inception architecture", section 7 (label smoothing); Loshchilov and Hutter 2019, "Decoupled weight decay".
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from parallel_lab.model.digits import digit_images
from parallel_lab.model.mlp import MLP
from parallel_lab.systems.evaluation import byte_model

EPOCHS = (1, 4, 16, 64)
FEW, VALIDATION, CLASSES = 100, 300, 10
DIGIT_EPOCHS, BATCH, LEARNING_RATE = 64, 20, 1e-2
PIXELS = 8


class TextLoss(NamedTuple):
    """Bits per byte on what was trained on, and on text that was not."""

    train: float
    held_out: float


def repeated(epochs: int, *, seed: int = 0, dropout: float = 0.0, weight_decay: float = 0.0) -> TextLoss:
    """Trains on a text that is `epochs` times shorter than what is read; steps and bytes read are always the same."""
    whole = byte_model.shuffled_text(seed)
    data = whole[: byte_model.BYTES // epochs]
    model = byte_model.train(data, seed=seed, dropout=dropout, weight_decay=weight_decay)
    return TextLoss(byte_model.bits_per_byte(model, data), byte_model.bits_per_byte(model, whole[-byte_model.BYTES :]))


@dataclass(frozen=True)
class Treatment:
    """What is done against overfitting.

    Attributes:
        weight_decay: AdamW's.
        dropout: the share of hidden values that a step drops.
        label_smoothing: `smoothing` above.
        augment: whether each image is turned and shifted a little, anew each time.
        images: how many are trained on; the number of steps does not change.
    """

    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    augment: bool = False
    images: int = FEW


TREATMENTS = {
    "nothing": Treatment(),
    "weight decay": Treatment(weight_decay=1.0),
    "dropout": Treatment(dropout=0.5),
    "label smoothing": Treatment(label_smoothing=0.1),
    "augmentation": Treatment(augment=True),
    "four times the data": Treatment(images=4 * FEW),
}


class Point(NamedTuple):
    """Where a run stands after so many passes over `FEW` images."""

    epoch: int
    objective: float  # what the optimizer minimizes, over the whole training set
    train: float
    validation: float
    test: float
    accuracy: float  # on the test set


@dataclass(frozen=True)
class Curve:
    """One run, a point for each epoch.

    Attributes:
        points: where it stood after each.
        logits: what it says of the test images at the end, (images, classes).
        labels: what these are.
    """

    points: tuple[Point, ...]
    logits: Tensor = field(compare=False, repr=False)
    labels: Tensor = field(compare=False, repr=False)

    @property
    def last(self) -> Point:
        """The end of the run."""
        return self.points[-1]

    def stopped(self, patience: int = DIGIT_EPOCHS) -> Point:
        """Early stopping: the point of the least validation loss, once `patience` more epochs brought none lower."""
        best = self.points[0]
        for point in self.points:
            if point.validation < best.validation:
                best = point
            if point.epoch - best.epoch >= patience:
                break
        return best


def treated(treatment: Treatment, *, seed: int = 0) -> Curve:
    """Trains an MLP on a few digits for as many steps as `DIGIT_EPOCHS` passes over `FEW` of them are."""
    torch.manual_seed(seed)
    images, labels = digit_images("train", seed=seed)
    sets = {
        "train": (images[: treatment.images], labels[: treatment.images]),
        "validation": (images[-VALIDATION:], labels[-VALIDATION:]),
        "test": digit_images("test", seed=seed),
    }
    model, generator = MLP(), torch.Generator().manual_seed(seed)
    model.insert(2, nn.Dropout(treatment.dropout))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=treatment.weight_decay)
    order, points = torch.empty(0, dtype=torch.int64), []
    for epoch in range(1, DIGIT_EPOCHS + 1):
        for _ in range(FEW // BATCH):
            if len(order) < BATCH:
                order = torch.randperm(treatment.images, generator=generator)
            chosen, order = order[:BATCH], order[BATCH:]
            inputs = moved(sets["train"][0][chosen], generator) if treatment.augment else sets["train"][0][chosen]
            optimizer.zero_grad()
            _objective(model, inputs, sets["train"][1][chosen], treatment).backward()
            optimizer.step()
        points.append(_point(epoch, model, sets, treatment))
    tested, true = sets["test"]
    return Curve(tuple(points), model.eval()(tested).detach(), true)


def _objective(model: nn.Module, images: Tensor, labels: Tensor, treatment: Treatment) -> Tensor:
    return cross_entropy(model(images), labels, label_smoothing=treatment.label_smoothing)


@torch.no_grad()
def _point(epoch: int, model: nn.Module, sets: dict[str, tuple[Tensor, Tensor]], treatment: Treatment) -> Point:
    model.eval()
    logits = {name: model(images) for name, (images, _) in sets.items()}
    losses = {name: cross_entropy(logits[name], labels).item() for name, (_, labels) in sets.items()}
    right = logits["test"].argmax(1) == sets["test"][1]
    objective = _objective(model, *sets["train"], treatment).item()
    model.train()
    return Point(epoch, objective, **losses, accuracy=right.double().mean().item())


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (64,) turned by up to 10 degrees and shifted by up to half a pixel both ways: its label stays true.

    Pixels are interpolated, and what comes in from outside is empty. On 8 by 8 pixels more than this makes images that
    no test set has.
    """
    angle, right, down = (2 * torch.rand(3, len(images), generator=generator) - 1).unbind()
    angle = angle * math.radians(10)
    turned = torch.stack([angle.cos(), -angle.sin(), right / PIXELS, angle.sin(), angle.cos(), down / PIXELS], dim=1)
    grid = affine_grid(turned.view(-1, 2, 3), [len(images), 1, PIXELS, PIXELS], align_corners=False)
    return grid_sample(images.view(-1, 1, PIXELS, PIXELS), grid, align_corners=False).flatten(1)


def smoothing_floor(smoothing: float, classes: int = CLASSES) -> float:
    """The least loss against smoothed labels, in nats: their entropy."""
    other = smoothing / classes
    true = 1 - smoothing + other
    return sum(share * math.log(1 / share) * times for share, times in ((true, 1), (other, classes - 1)) if share)
