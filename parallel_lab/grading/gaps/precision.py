"""The gaps of chapter 12: the largest number of a format, the loss scale after some steps, and who skips."""

from random import Random

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap


def prec_largest(exponent_bits, mantissa_bits):
    """The largest finite number of a format whose highest exponent is for infinity and NaN, as in IEEE 754."""
    return (2 - 2.0**-mantissa_bits) * 2.0 ** (2 ** (exponent_bits - 1) - 1)


def prec_scale_after(scale, finite, interval):
    """The loss scale after steps of which `finite` says whether all gradients were finite."""
    clean = 0
    for fine in finite:
        clean = clean + 1 if fine else 0
        if not fine:
            scale /= 2
        elif clean == interval:
            scale, clean = 2 * scale, 0
    return scale


def prec_skips(found, groups):
    """Whether each rank skips: all of a group with an overflow, and who shares a group with one that skips."""
    skips = list(found)
    for _ in groups:
        for group in groups:
            if any(skips[rank] for rank in group):
                for rank in group:
                    skips[rank] = True
    return skips


def _one_too_high(exponent_bits, mantissa_bits):
    return (2 - 2.0**-mantissa_bits) * 2.0 ** (2 ** (exponent_bits - 1))


def _without_mantissa(exponent_bits, mantissa_bits):
    return 2.0 ** (2 ** (exponent_bits - 1) - 1)


def _counts_all(scale, finite, interval):
    clean = 0
    for fine in finite:
        clean += fine
        if not fine:
            scale /= 2
        elif clean % interval == 0:
            scale *= 2
    return scale


def _never_ends(scale, finite, interval):
    clean = 0
    for fine in finite:
        clean = clean + 1 if fine else 0
        scale = scale * 2 if fine and clean >= interval else scale if fine else scale / 2
    return scale


def _alone(found, groups):
    return list(found)


def _once(found, groups):
    skips = list(found)
    for group in groups:
        if any(found[rank] for rank in group):
            for rank in group:
                skips[rank] = True
    return skips


def _runs(dice: Random) -> list[tuple]:
    return [(2.0**16, [dice.random() > 0.15 for _ in range(60)], interval) for interval in (3, 4, 5)]


TWO_BY_TWO = [[0, 1], [2, 3], [0, 2], [1, 3]]

GAPS: tuple[Exercise, ...] = (
    function_gap(
        prec_largest,
        tests={
            "float16 and bfloat16": [(5, 10), (8, 7)],
            "E5M2, and others": [(5, 2), (4, 4), (6, 9)],
        },
        mistakes={
            "The highest exponent is for infinity and NaN. Which is the highest for numbers?": _one_too_high,
            "With all bits of the mantissa set, the number is nearly twice that power of 2.": _without_mantissa,
        },
    ),
    function_gap(
        prec_scale_after,
        tests={
            "Clean steps alone": [(1024.0, [True] * 7, 3), (1.0, [], 2)],
            "With overflows": [(65536.0, [True, True, False, True, True], 3), (8.0, [False, False, True, True], 2)],
            "Long runs": _runs,
        },
        mistakes={
            "Clean steps are counted in a row: an overflow sets the count to 0.": _counts_all,
            "After it has doubled, the count starts anew.": _never_ends,
        },
    ),
    function_gap(
        prec_skips,
        tests={
            "One group of all": [([False, True, False, False], [[0, 1, 2, 3]])],
            "Groups of tensor and of data ranks": [
                ([True, False, False, False], TWO_BY_TWO),
                ([False, False, False, True], TWO_BY_TWO),
            ],
            "Nothing found": [([False] * 4, TWO_BY_TWO)],
        },
        mistakes={
            "A rank that skips alone has other weights than the rest of its model from now on.": _alone,
            "Rank 3 shares no group with rank 0, but with ranks that must skip with rank 0.": _once,
        },
    ),
)
