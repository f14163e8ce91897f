"""The gaps of chapter 18: which samples of a padded share count, the paired error, what a speed-up implies."""

from math import sqrt
from random import Random

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap


def eval_counted(samples, rank, ranks):
    """For each place of this rank's padded share, True if it counts and False if it repeats a sample."""
    return [rank + ranks * i < samples for i in range(-(-samples // ranks))]


def eval_paired_error(first, second):
    """(difference, standard error) of two models' accuracies on the same questions; lists of 0 and 1."""
    n, gains = len(first), [b - a for a, b in zip(first, second, strict=True)]
    mean = sum(gains) / n
    return mean, sqrt(sum((gain - mean) ** 2 for gain in gains) / (n - 1) / n)


def eval_predicted_speedup(one_s, n_s, n, more):
    """The speed-up on more ranks, by Amdahl's law with the serial share that T(1) = one_s and T(n) = n_s imply."""
    serial = (n_s / one_s - 1 / n) / (1 - 1 / n)
    return 1 / (serial + (1 - serial) / more)


def _all_count(samples, rank, ranks):
    return [True] * -(-samples // ranks)


def _last_of_all(samples, rank, ranks):
    each = -(-samples // ranks)
    return [rank * each + i < samples for i in range(each)]


def _too_few(samples, rank, ranks):
    return [True] * len(range(rank, samples, ranks))


def _error(values):
    n, mean = len(values), sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)


def _unpaired(first, second):
    return eval_paired_error(first, second)[0], sqrt(_error(first) ** 2 + _error(second) ** 2)


def _deviation(first, second):
    mean, error = eval_paired_error(first, second)
    return mean, error * sqrt(len(first))


def _first_less_second(first, second):
    mean, error = eval_paired_error(first, second)
    return -mean, error


def _same_efficiency(one_s, n_s, n, more):
    return one_s / n_s / n * more


def _efficiency_lost(one_s, n_s, n, more):
    serial = 1 - one_s / n_s / n
    return 1 / (serial + (1 - serial) / more)


def _answers(dice: Random) -> list[tuple]:
    """Two models on the same questions, three times."""
    calls = []
    for n in (5, 40, 300):
        first = [int(dice.random() < 0.7) for _ in range(n)]
        calls.append((first, [a if dice.random() < 0.8 else 1 - a for a in first]))
    return calls


GAPS: tuple[Exercise, ...] = (
    function_gap(
        eval_counted,
        tests={
            "Ten samples on four ranks": [(10, rank, 4) for rank in range(4)],
            "Nothing is repeated": [(8, 1, 4), (7, 0, 1)],
            "Fewer samples than ranks": [(2, 0, 4), (2, 3, 4)],
        },
        mistakes={
            "Each rank's share is equally long, and the last places of some ranks repeat a sample.": _all_count,
            "The sampler deals samples out in turns, r, r + n, ..., and not in contiguous pieces.": _last_of_all,
            "All ranks get equally many places; say of each whether it counts, also of those that do not.": _too_few,
        },
    ),
    function_gap(
        eval_paired_error,
        tests={
            "A few questions": [([1, 0, 1, 1], [1, 1, 1, 0]), ([1, 1, 0], [1, 1, 0])],
            "Many questions": _answers,
        },
        mistakes={
            "That adds the two models' own errors, as if each had answered other questions.": _unpaired,
            "That is the deviation of one difference; the error of the mean is that over sqrt(questions).": _deviation,
            "The second less the first: a better second model has a positive difference.": _first_less_second,
        },
    ),
    function_gap(
        eval_predicted_speedup,
        tests={
            "64 ranks, then 256": [(20.0, 1.0, 64, 256), (100.0, 4.0, 64, 256)],
            "No serial part, and the same ranks again": [(8.0, 1.0, 8, 64), (30.0, 3.0, 16, 16)],
        },
        mistakes={
            "That keeps the efficiency as it is. By Amdahl's law it falls with the ranks.": _same_efficiency,
            "One less the efficiency is no serial share. Solve T(n)/T(1) = serial + (1 - serial)/n.": _efficiency_lost,
        },
    ),
)
