"""Overfitting shows where it must, runs repeat exactly, and treatments do what they say."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from parallel_lab.model.digits import digit_images
from parallel_lab.systems.evaluation import byte_model
from parallel_lab.systems.evaluation.overfitting import (
    DIGIT_EPOCHS,
    TREATMENTS,
    Curve,
    Point,
    moved,
    repeated,
    smoothing_floor,
    treated,
)

NONE = torch.empty(0)
NAMES = ("nothing", "four times the data")


def test_repeating_a_short_text_lowers_the_training_loss_and_raises_the_other(monkeypatch):
    monkeypatch.setattr(byte_model, "STEPS", 96)
    often, once = repeated(64, seed=1), repeated(1, seed=1)
    assert often.train < once.train < once.held_out + 0.3
    assert often.held_out > once.held_out + 0.2


def test_a_seed_decides_a_run():
    assert treated(TREATMENTS["dropout"], seed=3) == treated(TREATMENTS["dropout"], seed=3)


def test_few_digits_overfit_and_stopping_early_is_cheaper():
    curve = treated(TREATMENTS["nothing"], seed=0)
    assert len(curve.points) == DIGIT_EPOCHS
    assert curve.last.train < 0.01 < curve.last.test
    assert curve.last.objective == curve.last.train
    best = curve.stopped()
    assert best.epoch < DIGIT_EPOCHS
    assert best.validation == min(point.validation for point in curve.points)
    assert best.test < curve.last.test
    assert (curve.logits.argmax(1) == curve.labels).double().mean() == curve.last.accuracy


def test_more_data_is_worth_more_than_the_spread_of_seeds():
    few, many = ([treated(TREATMENTS[name], seed=s).last.test for s in range(3)] for name in NAMES)
    assert max(many) < min(few)


def test_patience_stops_before_a_later_minimum():
    losses = [3.0, 2.0, 2.5, 2.6, 2.7, 1.0]
    curve = Curve(tuple(Point(i, 0, 0, loss, 0, 0) for i, loss in enumerate(losses, 1)), NONE, NONE)
    assert curve.stopped(patience=2).epoch == 2
    assert curve.stopped().epoch == 6


def test_smoothed_labels_have_a_floor_and_the_loss_of_true_labels_is_another_number():
    certain = torch.full((1, 10), 0.01).log()
    certain[0, 3] = math.log(0.91)
    least = cross_entropy(certain, torch.tensor([3]), label_smoothing=0.1).item()
    assert least == pytest.approx(smoothing_floor(0.1), abs=1e-6)
    assert smoothing_floor(0.0) == 0
    last = treated(TREATMENTS["label smoothing"], seed=0).last
    assert last.objective > smoothing_floor(0.1)
    assert last.train < last.objective


def test_a_moved_digit_keeps_its_size_and_most_of_its_ink():
    images, _ = digit_images()
    turned = moved(images[:50], torch.Generator().manual_seed(0))
    assert turned.shape == (50, 64)
    assert not torch.equal(turned, images[:50])
    ink = turned.sum(1) / images[:50].sum(1)
    assert ink.min() > 0.8 and ink.max() < 1.15
