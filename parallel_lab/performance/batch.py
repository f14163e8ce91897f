"""How large a batch pays: the gradient noise scale, and the critical batch size.

McCandlish, Kaplan, Amodei et al. 2018, "An empirical model of large-batch training", sections 2.2, 2.3, appendix A.1.

The gradient of B examples is the true one, g, and noise of variance / B, with `variance` the trace of the covariance of
one example's gradient. While the noise is larger than g, twice the batch saves nearly half the steps; once it is
smaller, twice the batch costs nearly twice the examples. The border is the noise scale B_simple = variance / |g|^2. It
is measured from |gradient|^2 at two batch sizes, which data-parallel ranks have at hand: their own gradient, and the
mean of all.

    mean of |gradient|^2   |g|^2 + variance / B       for every batch size B, whence two unbiased estimates
    steps to a loss        steps = steps_min (1 + B_crit / B)
    examples to it         steps B = examples_min (1 + B / B_crit),  examples_min = steps_min B_crit

The two estimates are unbiased; their ratio is not, so their means are divided, and not their ratios averaged. The model
holds for the examples that a loss takes, each batch size at its own best learning rate. It says nothing of the final
quality, and B_crit grows while the loss falls.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from parallel_lab.model import MLP
from parallel_lab.model.digits import digit_batches, digit_images


class Noise(NamedTuple):
    """Sums of unbiased estimates; add those of several steps before you divide."""

    square: float  # of |g|^2
    trace: float  # of the variance: the trace of that covariance

    @property
    def scale(self) -> float:
        """B_simple, in examples; infinite where the estimate of |g|^2 is not above zero: measure more steps."""
        return self.trace / self.square if self.square > 0 else float("inf")

    def plus(self, other: "Noise") -> "Noise":
        """Both sums together."""
        return Noise(self.square + other.square, self.trace + other.trace)


def from_squares(small: float, large: float, small_batch: int, large_batch: int) -> Noise:
    """The noise from |gradient|^2 of a small and of a large batch, the mean loss of each (appendix A.1).

    Raises:
        ValueError: the batches are not of two sizes, the smaller first.
    """
    if not 0 < small_batch < large_batch:
        raise ValueError(f"batches of {small_batch} and {large_batch}: expected two sizes, the smaller one first")
    square = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    return Noise(square, (small - large) / (1 / small_batch - 1 / large_batch))


def of_ranks(gradients: Tensor, batch: int) -> Noise:
    """The noise from the gradients (ranks, parameters) of ranks with `batch` examples each; large is their mean."""
    small = gradients.square().sum(1).mean()
    return from_squares(float(small), float(gradients.mean(0).square().sum()), batch, len(gradients) * batch)


@dataclass(frozen=True)
class Critical:
    """The two constants of the model, and what follows from them."""

    least_steps: float  # steps_min
    batch: float  # B_crit, in examples

    def steps(self, batch: float) -> float:
        """Steps to the loss."""
        return self.least_steps * (1 + self.batch / batch)

    def examples(self, batch: float) -> float:
        """Examples to the loss."""
        return batch * self.steps(batch)

    def efficiency(self, batch: float) -> float:
        """The least examples as a share of those that it takes: 1 / (1 + B / B_crit), a half at the critical batch."""
        return 1 / (1 + batch / self.batch)


def fit(batches: Sequence[float], steps: Sequence[float]) -> Critical:
    """steps = steps_min + steps_min B_crit / B, by least squares of relative errors.

    Raises:
        ValueError: there are less than two sizes, or steps do not fall with the batch: then there is no such model.
    """
    if len(set(batches)) < 2:
        raise ValueError(f"batches of {sorted(set(batches))}: a fit needs two sizes or more")
    b, s = np.asarray(batches, float), np.asarray(steps, float)
    (least, slope), *_ = np.linalg.lstsq(np.stack([1 / s, 1 / (b * s)], 1), np.ones_like(s), rcond=None)
    if least <= 0 or slope <= 0:
        raise ValueError(f"steps {list(steps)} for batches {list(batches)} do not fall toward a least number of steps")
    return Critical(float(least), float(slope / least))


def steps_to(loss: float, batch: int, rates: Iterable[float], *, seed: int = 0, most: int = 2000) -> int:
    """Steps of SGD until an `MLP` has `loss` on 500 digits that it trains on, at the best of the learning `rates`.

    Raises:
        ValueError: no rate gets there in `most` steps.
    """
    images, labels = (each[:500] for each in digit_images())
    best = most + 1
    for rate in rates:
        torch.manual_seed(seed)
        model = MLP()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for step, (x, y) in enumerate(digit_batches(batch, best - 1, seed=seed), 1):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            with torch.no_grad():
                if torch.nn.functional.cross_entropy(model(images), labels) <= loss:
                    best = step
                    break
    if best > most:
        raise ValueError(f"batch {batch}: no rate reaches a loss of {loss} in {most} steps")
    return best


def gradient_rows(model: torch.nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient of each batch, flat, as rows (batches, parameters); the model's weights and `.grad` stay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for x, y in batches:
        found = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y), parameters)
        rows.append(torch.cat([each.flatten() for each in found]))
    return torch.stack(rows)
