"""A gradient gives its batch away, exactly where a row belongs to one sample; what masks, sums and noise leave."""

import pytest
import torch

from parallel_lab.model import build
from parallel_lab.model.digits import digit_images
from parallel_lab.systems.security import inversion, private, secure_sum

IMAGES, LABELS = digit_images()


def _gradients(batch, start=0):
    model = build((64, 32, 10), seed=0)
    return inversion.gradients(model, IMAGES[start : start + batch], LABELS[start : start + batch])


def _divided(found, batch):
    return inversion.leak(inversion.by_division(found[0], found[1]), IMAGES[:batch], IMAGES)


def test_one_image_comes_back_exactly_with_its_label():
    for start in range(20):
        found = _gradients(1, start)
        candidates = inversion.by_division(found[0], found[1])
        torch.testing.assert_close(candidates, IMAGES[start].expand_as(candidates), atol=1e-4, rtol=0)
        assert inversion.label_of(found[-1]) == LABELS[start]


def test_rows_of_one_sample_give_it_away_from_a_batch_too():
    batch = 8
    model = build((64, 32, 10), seed=0)
    alone = (model[0](IMAGES[:batch]) > 0).double()
    owners = {int(column.argmax()) for column in alone.T if column.sum() == 1}
    leak = _divided(_gradients(batch), batch)
    assert owners and {int(k) for k in (leak.error < 1e-6).nonzero()} == owners and leak.exact == len(owners)


def test_a_larger_batch_hides_more_and_not_all():
    shares = [_divided(_gradients(batch), batch).exact / batch for batch in (1, 4, 16, 64)]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1 and 0 < shares[-1] < 0.1


def test_a_search_finds_image_and_label_where_division_has_no_bias_to_divide_by():
    model = inversion.smooth()
    for layer in (model[0], model[2]):
        layer.register_parameter("bias", None)
    image, label = IMAGES[:1].double(), LABELS[:1]
    found = inversion.by_search(model, inversion.gradients(model, image, label))
    leak = inversion.leak(found.images, image, IMAGES)
    assert (leak.exact, leak.named) == (1, 1) and found.labels.equal(label) and found.misses[-1] < found.misses[0] / 1e6


def test_masks_hide_the_gradient_from_who_adds_and_the_sum_hides_less():
    rows = [torch.cat([each.flatten() for each in _gradients(4, 4 * rank)]) for rank in range(3)]
    parties = [secure_sum.Party(rank, 3, 2) for rank in range(3)]
    publics = {each.number: each.public for each in parties}
    masked = [p.masked(secure_sum.to_whole(row), publics, own=False) for p, row in zip(parties, rows, strict=True)]

    def read(row):
        weight, bias = row[: 32 * 64].view(32, 64), row[32 * 64 : 32 * 65]
        return inversion.leak(inversion.by_division(weight, bias), IMAGES[:12], IMAGES).exact

    assert read(rows[0]) == 3, "alone, three of its four images are read"
    assert read(secure_sum.to_real(masked[0])) == 0
    total = secure_sum.to_real(torch.stack(masked).sum(0))
    torch.testing.assert_close(total, torch.stack(rows).double().sum(0), atol=3 * 2.0**-25, rtol=0)
    assert read(torch.stack(rows).sum(0)) > 0, "a row of the sum that belongs to one image gives it away"


def test_noise_of_private_training_ends_the_division():
    model, dice = build((64, 32, 10), seed=0), torch.Generator().manual_seed(0)
    read = {"plain": 0, "noisy": 0}
    named = dict(read)
    for start in range(20):
        image = IMAGES[start : start + 1]
        total = private.clipped_sum(model, image, LABELS[start : start + 1], 1.0)
        for kind, row in (("plain", total), ("noisy", total + torch.randn(len(total), generator=dice))):
            weight, bias = row[: 32 * 64].view(32, 64), row[32 * 64 : 32 * 65]
            leak = inversion.leak(inversion.by_division(weight, bias), image, IMAGES)
            read[kind] += leak.exact
            named[kind] += leak.named
    assert read == {"plain": 20, "noisy": 0}
    assert named["plain"] == 20 and named["noisy"] <= 5, "32 guesses each name the image now and then"


def test_nothing_to_divide_by_gives_no_candidates():
    none = inversion.by_division(torch.zeros(3, 4), torch.zeros(3))
    leak = inversion.leak(none, torch.zeros(2, 4), torch.zeros(2, 4))
    assert len(none) == 0 == leak.exact and leak.error.isinf().all()
    assert pytest.approx(0) == leak.named


def test_images_of_any_numbers_are_named():
    """A distance in float32 is not 0 between equal images, unless their numbers are as short as those of the digits."""
    collection = torch.rand(100, 64, generator=torch.Generator().manual_seed(0))
    leak = inversion.leak(collection[:40], collection[:50], collection)
    assert (leak.exact, leak.named) == (40, 40)
