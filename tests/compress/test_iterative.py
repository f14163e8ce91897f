"""Rounds of pruning and training: schedules, masks that only shrink, rewinding."""

import copy
import itertools

import pytest
import torch

from parallel_lab.compress.iterative import cubic, fine_tune, geometric, iterative
from parallel_lab.compress.pruning import Masks, magnitude, prunable
from parallel_lab.model import build, digit_batches, digit_images, train

WIDTHS = (64, 24, 10)
SGD = {"optimizer_class": torch.optim.SGD, "lr": 0.3, "momentum": 0.9}


def accuracy(model):
    images, labels = digit_images("test")
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def test_schedules():
    assert geometric(0.875, 3) == pytest.approx([0.5, 0.75, 0.875])
    assert cubic(0.8, 2) == pytest.approx([0.7, 0.8])


def test_without_masks_it_is_training():
    model, batches = build(WIDTHS), digit_batches(32, 5)
    right = train(model, batches, torch.optim.SGD, lr=0.3, momentum=0.9)
    assert fine_tune(model, Masks(), batches, **SGD) == right.losses
    assert all(torch.equal(p, right.weights[name]) for name, p in model.state_dict().items())


def test_rounds_keep_what_is_gone_and_win_over_one_shot():
    dense = build(WIDTHS)
    fine_tune(dense, Masks(), digit_batches(64, 100), **SGD)
    seen = []

    def tune(model, masks):
        seen.append(masks)
        fine_tune(model, masks, digit_batches(64, 20, seed=len(seen)), **SGD)

    model = copy.deepcopy(dense)
    masks = iterative(model, geometric(0.9, 3), tune)
    assert [each.sparsity for each in seen] == pytest.approx(geometric(0.9, 3), abs=1e-2)
    for before, after in itertools.pairwise(seen):
        assert all((after[name] <= before[name]).all() for name in before)
    assert all((weight[~masks[name]] == 0).all() for name, weight in prunable(model).items())
    once = copy.deepcopy(dense)
    magnitude(once, 0.9).apply(once)
    assert accuracy(dense) > 0.93 and accuracy(model) > accuracy(once) + 0.1


def test_rewinding_goes_back_to_early_weights():
    model = build(WIDTHS)
    fine_tune(model, Masks(), digit_batches(64, 5), **SGD)
    early = copy.deepcopy(model.state_dict())
    fine_tune(model, Masks(), digit_batches(64, 20, seed=1), **SGD)
    late = copy.deepcopy(model)
    at_start = []
    masks = iterative(model, [0.8], lambda net, _: at_start.append(copy.deepcopy(net.state_dict())), rewind=early)
    assert all(torch.equal(masks[name], mask) for name, mask in magnitude(late, 0.8).items())  # late weights choose
    for name, value in at_start[0].items():
        assert torch.equal(value, early[name] * masks.get(name, 1)), name


def test_a_schedule_that_falls_is_refused():
    with pytest.raises(ValueError, match="expected sparsities that rise"):
        iterative(build(WIDTHS), [0.5, 0.4], lambda *_: None)
