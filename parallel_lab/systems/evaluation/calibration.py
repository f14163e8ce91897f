"""Calibration over ranks: a model that says 80 % should be right in 80 % of the cases (Guo et al. 2017, sections 2, 4).

Samples are put into equal bins by their confidence, the largest probability. Expected calibration error (ECE) is

    ECE = sum over bins of  (count_i / count) |accuracy_i - confidence_i|

A bin's three sums (count, confidence, right) add up over ranks: 24 bytes a bin, 48 bins (n-1)/n bytes a rank. The mean
of ranks' ECE, weighted by samples, is never smaller and mostly larger: deviations of two ranks cancel in the sum, and
not in a mean of their absolute values.

Temperature scaling divides the logits by one number, the temperature, which changes no prediction. It is where the loss
on held-out samples is least. The loss is convex in 1/temperature, so its slope has one zero; ranks exchange 16 bytes
for each look at it.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.systems.evaluation.exchange import merge

BINS = 15
LOOKS = 60  # halvings of an interval: then it is narrower than a float64 can tell
SPAN = 10.0  # 1/T is looked for from 2^-SPAN to 2^SPAN


class Reliability(NamedTuple):
    """The bins that have samples, by confidence; what a reliability diagram shows."""

    samples: Tensor
    confidence: Tensor  # the mean in each
    accuracy: Tensor


def bins(labels: Tensor, probabilities: Tensor, bins: int = BINS) -> Tensor:
    """The sums of this rank's samples, float64 (3, bins): count, confidence, right. A rank without samples has zeros.

    Bin i has the confidences above i / bins, up to and with (i + 1) / bins. Probabilities are (samples, classes).

    Raises:
        ValueError: rows do not sum to 1, so they are logits, say; or there are not as many rows as labels.
    """
    if probabilities.dim() != 2 or len(probabilities) != len(labels):
        raise ValueError(
            f"{len(labels)} labels and probabilities of shape {tuple(probabilities.shape)}: expected a row of"
            " probabilities for each label"
        )
    given = probabilities.detach().double()
    if len(given) and float((given.sum(1) - 1).abs().max()) > 1e-3:
        raise ValueError("a row of probabilities does not sum to 1: pass softmax(logits), not logits")
    confidence, predicted = given.max(1) if len(given) else (given.new_zeros(0), labels)
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    columns = torch.stack([torch.ones_like(confidence), confidence, (predicted == labels).double()])
    return given.new_zeros(3, bins).index_add_(1, place, columns)


def reliability(sums: Tensor) -> Reliability:
    """The mean confidence and the accuracy of each bin that has samples."""
    count, confidence, right = sums[:, sums[0] > 0]
    return Reliability(count.long(), confidence / count, right / count)


def expected_calibration_error(sums: Tensor) -> float:
    """ECE of merged sums.

    Raises:
        ValueError: there are no samples.
    """
    if not float(total := sums[0].sum()):
        raise ValueError("no rank has a sample: there is nothing to calibrate; check the shards before you evaluate")
    return float((sums[1] - sums[2]).abs().sum() / total)


def temperature(labels: Tensor, logits: Tensor, group: dist.ProcessGroup | None = None) -> float:
    """The temperature for which logits / temperature have the least loss on the samples of all ranks, the same on each.

    Raises:
        ValueError: no rank has a sample; or there is no such temperature, as all are right (the loss falls toward 0),
            or as the model is no better than chance (it falls toward an infinite one).
    """
    low, high = -SPAN, SPAN
    if not _slope(labels, logits, low, group) < 0 < _slope(labels, logits, high, group):
        raise ValueError(
            "no temperature has the least loss: either each sample is right already, or the logits say nothing about"
            " the labels; use more held-out samples"
        )
    for _ in range(LOOKS):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(labels, logits, middle, group) < 0 else (low, middle)
    return 2 ** -((low + high) / 2)


def _slope(labels: Tensor, logits: Tensor, power: float, group: dist.ProcessGroup | None) -> float:
    """That of the mean loss over all ranks, along 1/T at 1/T = 2^power: the mean logit expected less the label's."""
    z = logits.detach().double()
    expected = ((z * 2**power).softmax(1) * z).sum(1)
    own = expected - z.gather(1, labels.view(-1, 1)).view(-1)
    slope, samples = merge(torch.stack([own.sum(), own.new_tensor(len(own))]), group).tolist()
    if not samples:
        raise ValueError("no rank has a sample: there is nothing to calibrate; check the shards before you evaluate")
    return slope / samples
