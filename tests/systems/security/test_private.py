"""The accountant against opacus and closed forms; private steps against autograd, and over ranks; canaries."""

import math
import warnings

import pytest
import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector

from parallel_lab import launch
from parallel_lab.model import build
from parallel_lab.model.digits import digit_images
from parallel_lab.systems.security import Privacy, membership, poisoned_job, private

with warnings.catch_warnings():  # opacus imports what others deprecated
    warnings.simplefilter("ignore")
    from opacus.accountants.analysis import rdp

pytestmark = pytest.mark.usefixtures("by_value")
SETTINGS = [(0.01, 1.0, 1000), (0.1, 1.0, 200), (0.001, 0.6, 10_000), (1.0, 4.0, 10), (0.05, 0.5, 300), (0.2, 8.0, 500)]
WIDTHS = (64, 16, 10)


@pytest.mark.parametrize(("rate", "noise", "steps"), SETTINGS)
def test_divergences_and_epsilon_are_those_of_opacus(rate, noise, steps):
    theirs = rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=private.ORDERS)
    ours = [private.divergence(rate, noise, order) for order in private.ORDERS]
    assert ours == pytest.approx(list(theirs), rel=1e-6)
    wanted, _ = rdp.get_privacy_spent(orders=private.ORDERS, rdp=theirs * steps, delta=1e-5)
    assert private.epsilon(rate, noise, steps, 1e-5) == pytest.approx(wanted, rel=1e-6)


def test_divergence_has_its_closed_forms():
    assert private.divergence(1.0, 2.0, 7.0) == pytest.approx(7.0 / (2 * 2.0**2), rel=1e-12), (
        "without sampling a / 2 z^2"
    )
    rate, noise, order = 0.1, 1.5, 5
    terms = (
        math.comb(order, k) * (1 - rate) ** (order - k) * rate**k * math.exp(k * (k - 1) / (2 * noise**2))
        for k in range(order + 1)
    )
    assert private.divergence(rate, noise, float(order)) == pytest.approx(math.log(sum(terms)) / (order - 1), rel=1e-12)
    for wrong in ((0.0, 1.0, 2.0), (0.5, 0.0, 2.0), (0.5, 1.0, 1.0)):
        with pytest.raises(ValueError, match="expected 0 < rate"):
            private.divergence(*wrong)


def test_noise_for_an_epsilon_is_the_least():
    noise = private.noise_for(2.0, 0.1, 200, 1e-5)
    assert private.epsilon(0.1, noise, 200, 1e-5) <= 2.0 < private.epsilon(0.1, noise - 2e-3, 200, 1e-5)
    with pytest.raises(ValueError, match="not to be had"):
        private.noise_for(1e-6, 1.0, 10**6, 1e-5)


def test_clipped_sum_is_that_of_each_sample_by_autograd():
    (images, labels), model = (each[:6] for each in digit_images()), build(WIDTHS)
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = torch.nn.functional.cross_entropy(model(image[None]), label[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    clip = float(torch.stack(rows).norm(dim=1).median())
    wanted = sum(row * min(1.0, clip / float(row.norm())) for row in rows)
    assert any(row.norm() > clip for row in rows) and any(row.norm() < clip for row in rows)
    torch.testing.assert_close(private.clipped_sum(model, images, labels, clip), wanted)
    assert not private.clipped_sum(model, images[:0], labels[:0], clip).any()


def test_noise_and_sampling_have_the_sizes_that_the_accountant_counts():
    model, (images, labels) = build(WIDTHS), digit_images()
    before = parameters_to_vector(model.parameters()).detach()
    dice = torch.Generator().manual_seed(0)
    private.step(model, images, labels, privacy=Privacy(0.1, 3.0, clip=1e-6), lr=1.0, dice=dice)
    moved = (before - parameters_to_vector(model.parameters()).detach()) * 0.1 * len(labels)
    assert float(moved.std()) == pytest.approx(3e-6, rel=0.1), "noise of z C on the sum"
    counts = [len(private._sampled(images, labels, 0.1, dice)[1]) for _ in range(200)]
    mean, deviation = 0.1 * len(labels), math.sqrt(len(labels) * 0.1 * 0.9)
    assert sum(counts) / 200 == pytest.approx(mean, abs=5 * deviation / math.sqrt(200)) and len(set(counts)) > 20


def test_ranks_step_as_one_process_does():
    images, labels = digit_images()
    images, labels = images[:60], labels[:60]

    def fn():
        model, rank = build(WIDTHS, dtype=torch.float64), dist.get_rank()
        part = slice(0, 20) if rank == 0 else slice(20, 60)
        dice = torch.Generator().manual_seed(rank)
        for noise, rate in ((0.0, 1.0), (0.0, 1.0), (50.0, 0.5)):
            kept = parameters_to_vector(model.parameters()).detach().clone()
            settings = Privacy(rate, noise)
            private.step_over_ranks(
                model, images[part].double(), labels[part], samples=60, privacy=settings, lr=0.5, dice=dice
            )
        return kept, parameters_to_vector(model.parameters()).detach()

    (one, noisy), (other, same) = launch(fn, ranks=2)
    model = build(WIDTHS, dtype=torch.float64)
    private.train(model, images.double(), labels, privacy=Privacy(1.0, 0.0), steps=2, lr=0.5)
    torch.testing.assert_close(one, parameters_to_vector(model.parameters()).detach(), atol=1e-12, rtol=0)
    assert torch.equal(one, other) and torch.equal(noisy, same)
    deviation = float(((noisy - one) * 0.5 * 60 / 0.5).std())
    assert deviation == pytest.approx(50.0, rel=0.1), "the shares of the noise add up to z C"


def test_privacy_costs_accuracy_and_ends_the_attack_on_canaries():
    train, test = digit_images(), digit_images("test")
    data, canaries = membership.plant(*train, canaries=60)
    found = {}
    for wanted in (math.inf, 2.0, 0.5):
        if wanted == math.inf:
            model = build((64, 64, 10))
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            dice = torch.Generator().manual_seed(0)
            for part in (p for _ in range(60) for p in torch.randperm(len(data[1]), generator=dice).split(128)):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(data[0][part]), data[1][part]).backward()
                optimizer.step()
        else:
            noise = private.noise_for(wanted, 0.1, 200, 1e-5)
            model = private.train(build((64, 32, 10)), *data, privacy=Privacy(0.1, noise), steps=200, lr=0.5)
        found[wanted] = membership.attack(model, canaries), poisoned_job.accuracy(model, test)
    chance = membership.chance(60)
    assert found[math.inf][0] > 0.7 and found[math.inf][1] > 0.85
    assert found[2.0][0] < private.advantage(2.0, 1e-5) and found[2.0][0] < chance + 0.15
    assert found[math.inf][1] > found[0.5][1] + 0.05, "privacy is paid for in accuracy"


def test_advantage_is_0_for_guessing_and_1_for_knowing():
    assert private.advantage(0.0, 0.0) == 0 and private.advantage(50.0, 0.0) == pytest.approx(1)
    assert private.advantage(1e4, 1e-5) == 1
    assert private.advantage(1.0, 0.1) == pytest.approx((math.e - 1 + 0.2) / (math.e + 1))
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.5, 0.9])
    assert membership.advantage(low, high) == 1 and membership.advantage(high, low) == 0
    assert 0 < membership.chance(1000, draws=20) < membership.chance(60, draws=20) < 0.2
