"""The estimates of the noise scale are unbiased, the fit finds its constants, digits have a critical batch.

The means of many draws are held within four standard errors, seeds fixed.
"""

import pytest
import torch

from parallel_lab.model import MLP
from parallel_lab.model.digits import digit_batches
from parallel_lab.performance import batch as batches
from parallel_lab.performance.batch import Critical, Noise, fit, from_squares, of_ranks, steps_to


def test_both_estimates_are_unbiased_and_the_naive_ratio_is_not():
    """Gradients are drawn: mean G, covariance 9 in each of 50 dimensions."""
    generator = torch.Generator().manual_seed(0)
    mean, deviation, ranks, each, draws = torch.full((50,), 0.4), 3.0, 4, 8, 4000
    square, trace = float(mean.square().sum()), 50 * deviation**2
    noise = torch.randn(draws, ranks, 50, generator=generator, dtype=torch.float64) * deviation / each**0.5
    found = [of_ranks(mean + draw, each) for draw in noise]
    for values, right in (([n.square for n in found], square), ([n.trace for n in found], trace)):
        values = torch.tensor(values)
        assert abs(values.mean() - right) < 4 * values.std() / draws**0.5
    total = Noise(0, 0)
    for one in found:
        total = total.plus(one)
    assert total.scale == pytest.approx(trace / square, rel=0.1)
    biased = torch.tensor([float((mean + draw).mean(0).square().sum()) for draw in noise])
    assert biased.mean() > 1.5 * square, "the square of a noisy mean is no estimate of |G|^2"


def test_two_sizes_of_exact_squares_give_back_what_they_are_made_of():
    square, trace = 2.0, 300.0
    found = from_squares(square + trace / 8, square + trace / 64, 8, 64)
    assert found.square == pytest.approx(square) and found.trace == pytest.approx(trace)
    assert found.scale == pytest.approx(150)
    assert Noise(-0.1, 3.0).scale == float("inf")
    for small, large in ((8, 8), (64, 8), (0, 8)):
        with pytest.raises(ValueError, match="expected two sizes, the smaller one first"):
            from_squares(1, 1, small, large)


def test_the_fit_finds_what_the_steps_are_made_of():
    right = Critical(83, 17)
    sizes = [4, 16, 64, 256, 1024]
    found = fit(sizes, [right.steps(size) for size in sizes])
    assert found.least_steps == pytest.approx(83) and found.batch == pytest.approx(17)
    for size in sizes:
        steps, examples = found.steps(size) / 83, found.examples(size) / (83 * 17)
        assert (steps - 1) * (examples - 1) == pytest.approx(1)
        assert found.efficiency(size) == pytest.approx(1 / examples)
    assert found.efficiency(17) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="a fit needs two sizes"):
        fit([8, 8], [3, 4])
    with pytest.raises(ValueError, match="do not fall toward a least number of steps"):
        fit([8, 64, 512], [10, 20, 40])


def test_a_larger_batch_of_digits_takes_fewer_steps_and_more_examples():
    """Claim D12: with the better of two rates for each size, a batch of 256 needs several times the examples of 8."""
    steps = {size: steps_to(0.3, size, (0.8, 0.4)) for size in (8, 32, 256)}
    assert steps[8] > steps[32] > steps[256]
    assert 8 * steps[8] < 32 * steps[32] < 256 * steps[256]
    found = fit(list(steps), list(steps.values()))
    assert 2 < found.batch < 256
    with pytest.raises(ValueError, match=r"batch 8: no rate reaches a loss of 0\.1 in 3 steps"):
        steps_to(0.1, 8, (0.4,), most=3)


def test_the_noise_of_digits_grows_while_the_loss_falls():
    torch.manual_seed(0)
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scales = []
    for steps in (50, 550):
        for x, y in digit_batches(64, steps, seed=1):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        rows = batches.gradient_rows(model, digit_batches(8, 150, seed=2))
        scales.append(of_ranks(rows, 8).scale)
    assert 0 < 3 * scales[0] < scales[1]
