"""Augmentations do what they say to each image, and harm or help as the test set decides."""

import pytest
import torch

from parallel_lab.model.digits import digit_images
from parallel_lab.systems.data import NGram, augment, corpus, split

IMAGE = torch.arange(1.0, 17).view(1, 4, 4)


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_shift_pads_and_a_roll_brings_the_edge_back():
    images = IMAGE.expand(200, 4, 4)
    shifted, rolled = augment.shifted(images, dice()), augment.rolled(images, dice())
    assert len(shifted.unique(dim=0)) == len(rolled.unique(dim=0)) == 9
    assert all(torch.equal(one.flatten().sort().values, IMAGE.flatten()) for one in rolled)
    down = torch.zeros(4, 4)
    down[1:] = IMAGE[0, :-1]
    assert any(torch.equal(one, down) for one in shifted)
    for one in shifted.unique(dim=0):
        assert (one == 0).sum() in (0, 4, 7)


@pytest.mark.parametrize(
    ("change", "flipped"),
    [(augment.mirrored, (2,)), (augment.upside_down, (1,)), (augment.half_turned, (1, 2))],
)
def test_a_flip_takes_half_of_the_images(change, flipped):
    images = IMAGE.expand(400, 4, 4)
    turned = (change(images, dice()) == IMAGE.flip(flipped)).all((1, 2))
    kept = (change(images, dice()) == IMAGE).all((1, 2))
    assert bool((turned ^ kept).all())
    assert 160 < int(turned.sum()) < 240


def test_a_rotation_by_nothing_changes_nothing_and_a_small_one_little():
    images = digit_images()[0][:50].view(-1, 8, 8)
    assert torch.allclose(augment.rotated(images, dice(), degrees=0.0), images, atol=1e-6)
    turned = augment.rotated(images, dice(), degrees=10.0)
    assert 0 < float((turned - images).abs().mean()) < 0.1
    assert augment.unchanged(images, dice()) is images
    quarter = torch.stack([augment.rotated(images[:1], dice(seed), degrees=90.0)[0] for seed in range(3)])
    assert quarter.shape == (3, 8, 8)


def test_flips_harm_digits_and_turning_takes_sixes_for_nines():
    """Three seeds: no flipped training is as good as the worst plain one; 6 and 9 are confused by the turn alone."""
    train, test = (digit_images(name) for name in ("train", "test"))
    train, test = (train[0][:100].view(-1, 8, 8), train[1][:100]), (test[0].view(-1, 8, 8), test[1])
    changes = (augment.unchanged, augment.mirrored, augment.half_turned)
    plain, mirrored, turned = (
        augment.trials(train, test, change, seeds=3, network=augment.dense) for change in changes
    )
    assert min(plain.accuracies) > max(mirrored.accuracies)
    assert min(plain.accuracies) > max(turned.accuracies)
    assert turned.sixes_and_nines > 0.02 > plain.sixes_and_nines
    assert plain.mean == pytest.approx(sum(plain.accuracies) / 3)
    assert augment.trial(train, test, seed=1, steps=5) == augment.trial(train, test, seed=1, steps=5)


def test_reversed_text_is_another_language():
    documents = split.by_document(corpus.unique_documents().values(), 0.2)
    train, held = ([text.encode() for text in texts] for texts in documents)
    reverse = [augment.reversed_order(text) for text in train]
    plain, both, only = (NGram(texts, order=4).bits_per_byte(held) for texts in (train, train + reverse, reverse))
    assert plain < both < only
    assert only > 2 * plain
