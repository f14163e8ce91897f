"""Accuracy, precision, recall and F1 over ranks, from one matrix of counts.

counts[i, j] is how many samples of class i were called j. The counts of two sets of samples add up to those of both,
so ranks exchange the matrix, 8 classes^2 bytes, whatever the number of samples:

    confusion (local) -> merge (one all-reduce, 2 (n-1)/n 8 classes^2 bytes a rank) -> accuracy, precision, recall, f1

    of a class: precision = tp / (tp + fp)    recall = tp / (tp + fn)    F1 = 2 tp / (2 tp + fp + fn)

F1 is no mean over samples: it divides by counts that the other ranks change. The mean of the ranks' F1 is another
number, also when it is weighted by samples. Accuracy is a mean over samples, so there weights are enough.

Averages over classes are scikit-learn's: `micro` adds the counts of all classes, which is accuracy where each sample
has one class; `macro` is the mean over classes, `weighted` the mean by the number of labels, `binary` is class 1 of
two, None gives each class. A class that is in no label and in no prediction counts in no mean, and is NaN by itself. A
class that is in one of them, but whose denominator is 0, counts as 0.
"""

import torch
from torch import Tensor

from parallel_lab.systems.evaluation.exchange import merge

__all__ = ["AVERAGES", "accuracy", "confusion", "f1", "merge", "precision", "recall"]

AVERAGES = ("micro", "macro", "weighted", "binary", None)


def confusion(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """The counts of this rank's samples, int64 (classes, classes): row the label, column the prediction.

    A rank without samples has zeros. Labels and predictions are whole numbers below `classes`, which is the number of
    classes in the task, and not of those that this rank has seen.

    Raises:
        ValueError: as many labels as predictions are not there, or one of them is no class.
    """
    labels, predictions = labels.flatten(), predictions.flatten()
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels and {len(predictions)} predictions: expected one each for a sample")
    for name, values in (("label", labels), ("prediction", predictions)):
        if len(values) and not (int(values.min()) >= 0 and int(values.max()) < classes):
            raise ValueError(
                f"a {name} of {int(values.min())} or {int(values.max())} is no class from 0 to {classes - 1}:"
                " pass the number of classes of the task, the same on every rank, and leave out what does not count"
            )
    places = labels.long() * classes + predictions.long()
    return torch.bincount(places, minlength=classes**2).view(classes, classes)


def accuracy(counts: Tensor) -> float:
    """The share of samples whose prediction is their label."""
    return int(counts.trace()) / _total(counts)


def precision(counts: Tensor, average: str | None = "macro") -> float | Tensor:
    """Of the samples called a class, the share that are of it."""
    return _average(counts, _right(counts), counts.sum(0), average)


def recall(counts: Tensor, average: str | None = "macro") -> float | Tensor:
    """Of the samples of a class, the share that were called it."""
    return _average(counts, _right(counts), counts.sum(1), average)


def f1(counts: Tensor, average: str | None = "macro") -> float | Tensor:
    """The harmonic mean of precision and recall of a class, 2 tp / (2 tp + fp + fn), averaged over classes."""
    return _average(counts, 2 * _right(counts), counts.sum(0) + counts.sum(1), average)


def _right(counts: Tensor) -> Tensor:
    return counts.diagonal()


def _total(counts: Tensor) -> int:
    if not (total := int(counts.sum())):
        raise ValueError("no rank has a sample: there is nothing to score; check the shards before you evaluate")
    return total


def _average(counts: Tensor, above: Tensor, below: Tensor, average: str | None) -> float | Tensor:
    """`above / below` of each class, put together as `average` says."""
    if average not in AVERAGES:
        raise ValueError(f"average={average!r}: expected one of {', '.join(map(repr, AVERAGES))}")
    total = _total(counts)
    if average == "micro":
        return int(above.sum()) / int(below.sum())
    each = above.double() / below.clamp(min=1)
    seen = counts.sum(0) + counts.sum(1) > 0
    if average == "binary":
        if len(counts) != 2:
            raise ValueError(f"average='binary' is for two classes, and here are {len(counts)}: take macro or micro")
        return float(each[1])
    if average == "macro":
        return float(each[seen].mean())
    if average == "weighted":
        return float((each * counts.sum(1)).sum() / total)
    return torch.where(seen, each, torch.nan)
