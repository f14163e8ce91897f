"""Which of two models is better, and by how much more than chance would do; both saw the same samples.

| question                                     | function                                                              |
|----------------------------------------------|-----------------------------------------------------------------------|
| how sure is one score                        | `standard_error`, `interval`, `wilson` for a share of right answers   |
| samples come in groups (questions on a text) | `clustered_error` (Liang and Zeger 1986)                              |
| how large is the difference                  | `paired_difference`, `paired_bootstrap` (Koehn 2004) for any score    |
| could it be chance                           | `mcnemar` for right or wrong, `permutation` for any score             |

Two scores of 71 % and 73 % on 1,000 samples have a standard error of 1.4 points each. If errors were independent, that
of the difference would be 2.0 points. But the same samples are hard for both models: the difference is taken sample by
sample, whose error is mostly smaller. A test says whether there is a difference, an interval how large it can be; who
compares many models, or looks after every epoch, must expect a p-value below 0.05 once in twenty times without a
difference.

Rows of statistics and a score of their sum stand for a corpus: BLEU, chrF, F1 and accuracy all fit. Over ranks, the
rows are gathered first (`exchange.gather`), 8 bytes a sample for each statistic; each rank draws with the same seed.
"""

from collections.abc import Callable, Sequence
from math import comb, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Score = Callable[[np.ndarray], float]
AT_ONCE = 2**22  # numbers that a bootstrap draws together


class Interval(NamedTuple):
    """A value, and where the true one lies with the confidence asked for."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The second's mean less the first's, over the same samples."""

    value: float
    error: float  # its standard error
    low: float
    high: float


class Chance(NamedTuple):
    """A difference, and how often chance alone makes one as large."""

    value: float
    p: float


def standard_error(values: ArrayLike) -> float:
    """Of the mean of independent values: their deviation over the root of their number.

    Raises:
        ValueError: there are less than two.
    """
    given = _several(values)
    return float(given.std(ddof=1) / sqrt(len(given)))


def clustered_error(values: ArrayLike, clusters: Sequence[object]) -> float:
    """The standard error of the mean where values of a cluster depend on each other.

    The deviations of a cluster are added before they are squared. With one value in each cluster it is the usual error,
    but for the factor sqrt(1 - 1 / values).

    Raises:
        ValueError: there are less than two clusters, or not a cluster for each value.
    """
    given = _several(values)
    if len(clusters) != len(given):
        raise ValueError(f"{len(given)} values and {len(clusters)} clusters: expected the cluster of each value")
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(place, given - given.mean())
    if len(sums) < 2:
        raise ValueError("one cluster alone says nothing about the others: its spread is not known")
    return float(np.sqrt(np.square(sums).sum()) / len(given))


def interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean and a normal interval around it; for many values."""
    mean, reach = float(_several(values).mean()), _z(confidence) * standard_error(values)
    return Interval(mean, mean - reach, mean + reach)


def wilson(right: int, samples: int, confidence: float = 0.95) -> Interval:
    """The share of right answers and its interval (Wilson 1927), which stays within 0 and 1 and holds for few samples.

    Raises:
        ValueError: there are no samples, or more right ones than samples.
    """
    if not 0 <= right <= samples or not samples:
        raise ValueError(f"{right} right of {samples}: expected 0 <= right <= samples, and a sample")
    z, share = _z(confidence), right / samples
    middle = (share + z**2 / (2 * samples)) / (1 + z**2 / samples)
    reach = z / (1 + z**2 / samples) * sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2))
    return Interval(share, middle - reach, middle + reach)


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Difference:
    """The mean difference of two models on the same samples, with the error of the differences.

    Raises:
        ValueError: the two do not have the same number of samples, or less than two.
    """
    one, two = _pair(first, second)
    error = standard_error(two - one)
    value, reach = float((two - one).mean()), _z(confidence) * error
    return Difference(value, error, value - reach, value + reach)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """The exact two-sided p-value of McNemar's test (1947): do the samples that one alone got right fall like coins?

    `first` and `second` say for each sample whether the model was right. Where both agree, nothing is said about a
    difference.

    Raises:
        ValueError: the two do not have the same number of samples, or less than two.
    """
    one, two = (each != 0 for each in _pair(first, second))
    only_one, only_two = int((one & ~two).sum()), int((two & ~one).sum())
    throws = only_one + only_two
    tail = sum(comb(throws, k) for k in range(min(only_one, only_two) + 1))
    return min(1.0, 2 * tail / 2**throws)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    score: Score | None = None,
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The difference of two scores, and the interval that it has over corpora drawn anew from the same samples.

    Each draw takes as many samples, with repetition, the *same* for both. Rows are the statistics of samples, of shape
    (samples,) or (samples, statistics); `score` gets their sum, (statistics,), and is the mean over samples if left
    out.

    Raises:
        ValueError: the two do not have the same number of samples, or less than two.
    """
    one, two = (each.reshape(len(each), -1) for each in _pair(first, second))
    samples, generator = len(one), np.random.default_rng(seed)
    score = score or (lambda sums: float(sums[0]) / samples)
    found: list[float] = []
    while len(found) < draws:
        several = min(draws - len(found), max(1, AT_ONCE // samples))
        times = generator.multinomial(samples, np.full(samples, 1 / samples), several)  # (draws, samples)
        found += [score(b) - score(a) for a, b in zip(times @ one, times @ two, strict=True)]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(score(two.sum(0)) - score(one.sum(0)), float(low), float(high))


def permutation(
    first: ArrayLike, second: ArrayLike, score: Score | None = None, *, draws: int = 1000, seed: int = 0
) -> Chance:
    """The difference of two scores, and its two-sided p-value by swapping the models at random, sample by sample.

    If the models do not differ, who said what does not matter. The p-value counts the given order as one of the draws,
    so it is never 0. Rows and `score` as in `paired_bootstrap`.

    Raises:
        ValueError: the two do not have the same number of samples, or less than two.
    """
    one, two = (each.reshape(len(each), -1) for each in _pair(first, second))
    generator, total = np.random.default_rng(seed), one.sum(0) + two.sum(0)
    score = score or (lambda sums: float(sums[0]) / len(one))
    value, as_large = score(two.sum(0)) - score(one.sum(0)), 0
    for _ in range(draws):
        swapped = np.where(generator.random(len(one))[:, None] < 0.5, one, two).sum(0)
        as_large += abs(score(swapped) - score(total - swapped)) >= abs(value) - 1e-12
    return Chance(value, (as_large + 1) / (draws + 1))


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a share between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _several(values: ArrayLike) -> np.ndarray:
    given = np.asarray(values, float)
    if len(given) < 2:
        raise ValueError(f"{len(given)} samples have no spread: expected two or more")
    return given


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    one, two = _several(first), _several(second)
    if one.shape != two.shape:
        raise ValueError(f"shapes {one.shape} and {two.shape}: both models answer the same samples, in the same order")
    return one, two
