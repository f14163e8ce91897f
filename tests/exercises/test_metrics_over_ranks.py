"""`metrics_over_ranks`: means of ranks, weighted or not, gathered samples, classes that do not occur, ties."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "metrics_over_ranks"


def counted(labels, predictions, classes):
    return torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)


def merged(labels, predictions, classes):
    counts = counted(labels, predictions, classes)
    dist.all_reduce(counts)
    return counts


def macro(counts, absent=False):
    occurs = counts.sum(0) + counts.sum(1)
    each = 2 * counts.diagonal().double() / occurs.clamp(min=1)
    return each.mean().item() if absent else each[occurs > 0].mean().item()


def mean_of_ranks(value, weight=1.0):
    total = torch.tensor([weight * value, weight], dtype=torch.float64)
    dist.all_reduce(total)
    return (total[0] / total[1]).item()


def area(ones, others, tie=0.5):
    pairs = ones[:, None], others[None]
    return ((pairs[0] > pairs[1]).double() + tie * (pairs[0] == pairs[1])).mean().item()


def gathered(tensor):
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, tensor.cpu())
    return torch.cat(parts)


def answer(of_counts=merged, of_f1=None, of_auc=None):
    def metrics_over_ranks(labels, predictions, scores, classes):
        counts = of_counts(labels, predictions, classes)
        f1 = of_f1(labels, predictions, classes) if of_f1 else macro(counts)
        found = {"counts": counts, "f1": f1}
        return found if scores is None else found | {"auc": (of_auc or exact)(labels == 1, scores)}

    return metrics_over_ranks


def exact(ones, scores):
    """Not a cheat: all scores, labels and all, on every rank."""
    ones, scores = gathered(ones), gathered(scores)
    return area(scores[ones], scores[~ones])


def of_samples(labels, predictions, classes):
    """Right, and sends all samples."""
    return counted(gathered(labels), gathered(predictions), classes)


def f1_of_ranks(labels, predictions, classes):
    return mean_of_ranks(macro(counted(labels, predictions, classes)))


def f1_by_samples(labels, predictions, classes):
    return mean_of_ranks(macro(counted(labels, predictions, classes)), len(labels))


def f1_of_all_classes(labels, predictions, classes):
    return macro(merged(labels, predictions, classes), absent=True)


def auc_by_pairs(ones, scores):
    return mean_of_ranks(area(scores[ones], scores[~ones]), int(ones.sum() * (~ones).sum()))


def auc_without_ties(ones, scores):
    ones, scores = gathered(ones), gathered(scores)
    return area(scores[ones], scores[~ones], tie=0.0)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (answer(of_counts=of_samples), 1, r"sent .*gathering the counts sends 2,400 B\n.*grows with the samples"),
    (answer(of_f1=f1_of_ranks), 2, "at 2 ranks: f1 is the mean of the ranks' F1\n.*divide once"),
    (answer(of_f1=f1_by_samples), 2, "at 2 ranks: f1 is the mean of the ranks' F1, weighted by samples"),
    (answer(of_f1=f1_of_all_classes), 2, "f1 counts 0 for a class that does not occur"),
    (answer(of_auc=auc_by_pairs), 3, "auc is the mean of the ranks' AUC, weighted by their pairs\n.*On which rank"),
    (answer(of_auc=auc_without_ties), 3, "auc counts a tie as lost"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_another_right_answer_passes():
    assert_passes(NAME, answer())


def of_nothing(labels, predictions, scores, classes):
    return {"counts": merged(labels, predictions, classes)}


def without_auc(labels, predictions, scores, classes):
    counts = merged(labels, predictions, classes)
    return {"counts": counts, "f1": macro(counts)}


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, of_nothing, "expected a dict with 'f1'")
    assert_ends_a_step(NAME, 2, without_auc, "expected a dict with 'auc'")
