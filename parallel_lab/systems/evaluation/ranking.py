"""ROC and the area under it, AUC, over ranks: exactly by exchanging scores, nearly by exchanging a histogram.

AUC is the chance that a positive sample scores higher than a negative one, a tie counting one half (Hanley and McNeil
1982). With `pos` positives, `neg` negatives, and AUC_ij that of rank i's positives against rank j's negatives,

    AUC = sum over i, j of  pos_i neg_j AUC_ij  /  (pos neg)

Of these n^2 terms a rank can compute the one with i = j. The others are on no rank, so no weights make the mean of the
ranks' AUC right. Something of the samples has to travel:

| way              | what travels                                          | bytes that a rank sends, n ranks   |
|------------------|-------------------------------------------------------|------------------------------------|
| `auc_over_ranks` | the scores of the rarer class, then one whole number  | at most 8 min(pos, neg) + 8 n + 48 |
| `roc_over_ranks` | all scores: each is a point of the curve              | at most 8 (pos + neg) + 16 n       |
| `histogram_auc`  | two counts a bin, all-reduced                         | 32 bins (n-1)/n                    |

In the first, each rank holds the gathered scores against its own samples of the other class, and counts twice the wins
plus the ties, a whole number: so the result is exact, and the same on any number of ranks. The histogram takes all
pairs within a bin as ties. Of bin i these pos_i neg_i pairs are wrong by one half at most, so the error is at most
sum over i of pos_i neg_i / (2 pos neg), which the merged counts say too.

Scores are compared as float64. Labels are 0 and 1, or booleans. Where all ranks together lack a class there is no AUC,
and every rank says so.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.systems.evaluation.exchange import gather, merge


class Roc(NamedTuple):
    """The curve, from (0, 0) to (1, 1), one point for each distinct score, the highest first."""

    false_positive_rate: Tensor
    true_positive_rate: Tensor
    thresholds: Tensor  # a sample counts as positive from here on; the first is infinite


class HistogramAuc(NamedTuple):
    """An area, and how far it can be from the exact one."""

    value: float
    bound: float


def auc(labels: Tensor, scores: Tensor) -> float:
    """The area of these samples alone, ties counting one half.

    Raises:
        ValueError: a class is missing, a label is neither 0 nor 1, or a score is NaN.
    """
    positives, negatives = split(labels, scores)
    pairs = _both(len(positives), len(negatives))
    return _twice_won(positives, negatives) / (2 * pairs)


def auc_over_ranks(labels: Tensor, scores: Tensor, group: dist.ProcessGroup | None = None) -> float:
    """The area of the samples of all ranks, exact; ranks may have any number of samples, and none.

    Raises:
        ValueError: as `auc`, of all ranks' samples.
    """
    positives, negatives = split(labels, scores)
    own = torch.tensor([len(positives), len(negatives)], device=scores.device)
    counts: list[int] = merge(own, group).tolist()
    pairs = _both(*counts)
    if counts[0] <= counts[1]:
        won = _twice_won(gather(positives, group), negatives)
    else:
        won = _twice_won(positives, gather(negatives, group))
    return int(merge(torch.tensor([won], device=scores.device), group)) / (2 * pairs)


def roc(labels: Tensor, scores: Tensor) -> Roc:
    """The curve of these samples alone, with all its points.

    Raises:
        ValueError: as `auc`.
    """
    positives, negatives = split(labels, scores)
    _both(len(positives), len(negatives))
    thresholds = torch.cat([positives, negatives]).unique().flip(0)
    rates = []
    for found in (negatives, positives):
        below = torch.searchsorted(found.sort().values, thresholds)
        rates.append((len(found) - below).double() / len(found))
    start, infinite = thresholds.new_zeros(1), thresholds.new_full((1,), torch.inf)
    return Roc(torch.cat([start, rates[0]]), torch.cat([start, rates[1]]), torch.cat([infinite, thresholds]))


def roc_over_ranks(labels: Tensor, scores: Tensor, group: dist.ProcessGroup | None = None) -> Roc:
    """The curve of the samples of all ranks, by gathering them on every rank.

    Raises:
        ValueError: as `auc`, of all ranks' samples.
    """
    positives, negatives = (gather(each, group) for each in split(labels, scores))
    return roc(torch.arange(len(positives) + len(negatives)) < len(positives), torch.cat([positives, negatives]).cpu())


def histogram(labels: Tensor, scores: Tensor, bins: int) -> Tensor:
    """How many negatives (row 0) and positives (row 1) have a score in each of `bins` equal bins of [0, 1], int64.

    Raises:
        ValueError: as `auc`, or a score is outside [0, 1].
    """
    positives, negatives = split(labels, scores)
    if len(scores) and not (float(scores.min()) >= 0 and float(scores.max()) <= 1):
        raise ValueError("a histogram is over scores in [0, 1], the same bins on every rank: take sigmoid(scores)")
    places = [(each * bins).long().clamp(max=bins - 1) for each in (negatives, positives)]
    return torch.stack([torch.bincount(each, minlength=bins) for each in places])


def area_of(counts: Tensor) -> HistogramAuc:
    """The area of merged counts (2, bins), and its error bound.

    Raises:
        ValueError: a class is missing.
    """
    negatives, positives = counts
    pairs = _both(int(positives.sum()), int(negatives.sum()))
    below = negatives.cumsum(0) - negatives
    tied = int((positives * negatives).sum())
    return HistogramAuc((2 * int((positives * below).sum()) + tied) / (2 * pairs), tied / (2 * pairs))


def histogram_auc(labels: Tensor, scores: Tensor, bins: int, group: dist.ProcessGroup | None = None) -> HistogramAuc:
    """The area of the samples of all ranks to within a bound, from `bins` bins; scores are in [0, 1].

    Raises:
        ValueError: as `histogram` and `area_of`.
    """
    return area_of(merge(histogram(labels, scores, bins), group))


def split(labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of the positives and of the negatives, in float64.

    Raises:
        ValueError: a label is neither 0 nor 1, a score is NaN, or there are not as many of both.
    """
    labels, scores = labels.flatten(), scores.detach().flatten().double()
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels and {len(scores)} scores: expected one each for a sample")
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError("labels are 0 and 1: for more classes take one against the rest, (labels == c).long()")
    if bool(scores.isnan().any()):
        raise ValueError("a score is NaN: it is neither above nor below any other; look for it before you evaluate")
    return scores[labels == 1], scores[labels == 0]


def _both(positives: int, negatives: int) -> int:
    """The pairs of a positive and a negative."""
    if not positives or not negatives:
        raise ValueError(
            f"all samples together have {positives} positives and {negatives} negatives: AUC compares the two, so it"
            " needs one of each; evaluate on more samples, or report accuracy"
        )
    return positives * negatives


def _twice_won(positives: Tensor, negatives: Tensor) -> int:
    """Over all pairs, 2 where the positive scores higher and 1 where they tie; a whole number, below 2^63."""
    below = negatives.sort().values
    lower, upper = (torch.searchsorted(below, positives, right=right).sum() for right in (False, True))
    return int(lower) + int(upper)
