"""The digits: their batches keep the contract, and the MLP learns them."""

import pytest
import torch

from parallel_lab.model import MLP, build, digit_batches, digit_images, loss, shard_sizes


def test_the_images_are_real_and_split_once():
    images, labels = digit_images("train")
    test_images, test_labels = digit_images("test")
    assert images.shape == (1438, 64) and test_images.shape == (359, 64)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 1
    assert torch.cat([labels, test_labels]).bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_split_hangs_on_its_seed_alone():
    assert not torch.equal(digit_images("test", 0)[1], digit_images("test", 1)[1])
    seen = {
        seed: torch.cat([x for x, _ in digit_batches(1438, 1, seed=seed)]).double().sum(0).sort().values
        for seed in (0, 1)
    }
    torch.testing.assert_close(seen[0], seen[1])  # the same images in another order


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_shares_in_rank_order_are_the_global_batch(world):
    whole = list(digit_batches(10, steps=3, seed=5))
    ranks = [list(digit_batches(10, steps=3, rank=rank, world=world, seed=5)) for rank in range(world)]
    assert [len(mine[0][0]) for mine in ranks] == shard_sizes(10, world)
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([mine[step][0] for mine in ranks]), images)
        assert torch.equal(torch.cat([mine[step][1] for mine in ranks]), labels)


def test_an_epoch_has_every_image_and_the_next_another_order():
    images, _ = digit_images("train")
    steps = -(-2 * len(images) // 100)
    stream = torch.cat([x for x, _ in digit_batches(100, steps)])
    first, second = stream[: len(images)], stream[len(images) : 2 * len(images)]

    def rows(epoch: torch.Tensor) -> list[tuple[float, ...]]:
        return sorted(map(tuple, epoch.tolist()))

    assert rows(first) == rows(second) == rows(images)
    assert not torch.equal(first, second)
    assert not torch.equal(next(iter(digit_batches(100, 1, seed=1)))[0], first[:100])


def test_the_mlp_learns_the_digits():
    model = build((64, 128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for images, labels in digit_batches(64, steps=100):
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()
    images, labels = digit_images("test")
    assert (model(images).argmax(-1) == labels).float().mean() > 0.85


def test_the_mlp_is_a_chain_of_its_layers():
    model = MLP((64, 32, 16, 10))
    assert [type(layer).__name__ for layer in model.layers()] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    x = torch.randn(2, 64)
    out = x
    for layer in model.layers():
        out = layer(out)
    assert torch.equal(out, model(x)) and out.shape == (2, 10)
    with pytest.raises(ValueError, match="at least"):
        MLP((64,))


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="validation"):
        digit_images("validation")
