"""Differentially private SGD, and the accountant that says how private it was.

DP-SGD (Abadi et al. 2016), each step: every sample joins the batch with probability rate, by itself (Poisson
sampling); each sample's gradient is clipped to the norm clip; to their *sum* comes Gaussian noise of deviation z clip;
the result is divided by the expected batch, rate samples. So no sample moves the sum by more than clip, and the noise
hides whether it was there.

(epsilon, delta)-DP says: whatever is seen, adding or removing one sample changes its probability by a factor of
exp(epsilon) at most, but for delta. The accountant adds up Renyi divergences (Mironov 2017). Of one step with sampling
(Mironov, Talwar and Zhang 2019) the divergence of an order is log(moment) / (order - 1) with

    moment = mean of ((1 - rate) + rate exp((2 noise - 1) / (2 z^2)))^order, where noise is normal, of deviation z

(the other direction, with the two distributions exchanged, is no larger, as they show). Here the moment is
integrated numerically, for all orders in the same way; opacus sums a series. Over steps divergences add up.
Of all orders the best bound on epsilon counts (Canonne, Kamath and Steinke 2020, proposition 12).

What it does not stop. It hides one *sample*: for who gave two of them epsilon is about twice as large, and delta larger
still. It hides nothing that all samples have in common, and stops no poisoned gradient: clipping
bounds a sample, not a rank that lies. Runs that were only for tuning count too. The proof asks for Poisson sampling: an
epoch in shuffled batches is another mechanism. The noise here is of a generator that is not made for secrets.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.runtime.group import member
from parallel_lab.systems.security.rows import descend, gradients

ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *map(float, range(12, 64)))  # those of opacus
NODES, WIDE = 4_000, 14.0  # points of the integral, and how many deviations it reaches beyond the peaks


@cache
def divergence(rate: float, noise: float, order: float) -> float:
    """The Renyi divergence of one step, of an `order` above 1: sampling `rate`, `noise` z over the clipping norm.

    The integrand has its peaks between 0 and `order`, and falls off like a Gaussian: a sum over equal steps is then
    exact but for rounding.

    Raises:
        ValueError: a rate outside (0, 1], noise that is not positive, or an order of 1 or less.
    """
    if not 0 < rate <= 1 or noise <= 0 or order <= 1:
        raise ValueError(f"rate={rate}, noise={noise}, order={order}: expected 0 < rate <= 1, noise > 0 and order > 1")
    x, width = np.linspace(-WIDE * noise, order + WIDE * noise, NODES, retstep=True)
    ratio = (2 * x - 1) / (2 * noise**2) + math.log(rate)
    mixed = np.logaddexp(math.log1p(-rate), ratio) if rate < 1 else ratio
    exponents = order * mixed - x**2 / (2 * noise**2)
    peak = exponents.max()
    log_a = peak + math.log(np.exp(exponents - peak).sum() * width / (noise * math.sqrt(2 * math.pi)))
    return max(0.0, log_a / (order - 1))


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The smallest epsilon that `ORDERS` prove for `steps` steps at this delta."""
    bounds = [
        steps * divergence(rate, noise, a) - (math.log(delta) + math.log(a)) / (a - 1) + math.log1p(-1 / a)
        for a in ORDERS
    ]
    return max(0.0, min(bounds))


def noise_for(wanted: float, rate: float, steps: int, delta: float) -> float:
    """The least noise from 0.1 on, to 1e-3, for which `epsilon` is at most `wanted`.

    Raises:
        ValueError: no noise up to 1,000 does.
    """
    low, high = 0.1, 1000.0
    if epsilon(rate, high, steps, delta) > wanted:
        raise ValueError(f"epsilon {wanted} is not to be had in {steps} steps at a rate of {rate}")
    while high - low > 1e-3:
        middle = math.sqrt(low * high) if high > 2 * low else (low + high) / 2
        low, high = (low, middle) if epsilon(rate, middle, steps, delta) <= wanted else (middle, high)
    return high


def advantage(epsilon: float, delta: float) -> float:
    """At most by how much a test for membership is right more often than wrong: hits less false alarms, from 0 to 1.

    Under (epsilon, delta)-DP hits <= exp(epsilon) alarms + delta, and the same of misses and right refusals.
    """
    down = math.exp(-epsilon)  # of a large epsilon exp(epsilon) would be no float
    return min(1.0, (1 - down + 2 * delta * down) / (1 + down))


def clipped_sum(model: nn.Module, images: Tensor, labels: Tensor, clip: float) -> Tensor:
    """The sum of the samples' flat gradients, each scaled down to the norm `clip` where it is longer."""
    if not len(images):
        return torch.zeros_like(parameters_to_vector(model.parameters()).detach())
    rows = gradients(model, images[:, None], labels[:, None])  # (samples, parameters)
    return ((clip / rows.norm(dim=1).clamp(min=clip))[:, None] * rows).sum(0)


@dataclass(frozen=True)
class Privacy:
    """The settings of DP-SGD.

    Attributes:
        rate: the probability of a sample to be in a batch.
        noise: the deviation of the noise in units of `clip`, z; 0 is no privacy.
        clip: the norm to which each sample's gradient is cut.
    """

    rate: float
    noise: float
    clip: float = 1.0


@keyword_only()
def step(
    model: nn.Module, images: Tensor, labels: Tensor, *, privacy: Privacy, lr: float, dice: torch.Generator
) -> None:
    """One step in one process: sample, clip, sum, add noise, divide by the expected batch, descend."""
    total = clipped_sum(model, *_sampled(images, labels, privacy.rate, dice), privacy.clip)
    total += (privacy.noise * privacy.clip * torch.randn(len(total), generator=dice)).to(total)
    descend(model, total / (privacy.rate * len(labels)), lr)


def _sampled(images: Tensor, labels: Tensor, rate: float, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    taken = (torch.rand(len(labels), generator=dice) < rate).to(labels.device)
    return images[taken], labels[taken]


@keyword_only()
def step_over_ranks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    samples: int,
    privacy: Privacy,
    lr: float,
    dice: torch.Generator,
    group: dist.ProcessGroup | None = None,
) -> None:
    """One step over ranks, each with its part of all `samples` and its own dice: one all-reduce of the model's size.

    Each of n ranks adds noise of deviation z clip / sqrt(n), so that the sum has z clip. A rank that knows its own
    share of the noise sees the sum with z clip sqrt((n - 1) / n) only. And each rank's own message has too little noise
    for one who sees it alone, unless it is added under masks (`secure_sum`).
    """
    group = member(group)
    total = clipped_sum(model, *_sampled(images, labels, privacy.rate, dice), privacy.clip)
    share = privacy.noise * privacy.clip / math.sqrt(group.size())
    total += (share * torch.randn(len(total), generator=dice)).to(total)
    dist.all_reduce(total, group=group)
    descend(model, total / (privacy.rate * samples), lr)


def train(
    model: nn.Module, images: Tensor, labels: Tensor, *, privacy: Privacy, steps: int, lr: float, seed: int = 0
) -> nn.Module:
    """Trains `model` in place by `steps` private steps, and returns it."""
    dice = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        step(model, images, labels, privacy=privacy, lr=lr, dice=dice)
    return model
