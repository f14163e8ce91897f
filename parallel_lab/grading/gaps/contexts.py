"""The gaps of chapter 10: a rank's tokens under zig-zag, two partial softmaxes merged, and the copies that it sends."""

import math

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

NOTHING = (-math.inf, 0.0, 0.0)  # a block of keys of which this query sees none
CHOSEN = ([[0, 1], [0, 3], [2, 3]], [[5, 0], [4, 1], [4, 5], [4, 2]], [[1], [1], [1]])


def cp_merge(one, other):
    """The softmax of two blocks of keys together, from that of each: (largest score, sum of exp, weighted sum)."""
    top = max(one[0], other[0])
    if top == -math.inf:
        return [top, 0.0, 0.0]
    scales = math.exp(one[0] - top), math.exp(other[0] - top)
    return [top, *(scales[0] * a + scales[1] * b for a, b in zip(one[1:], other[1:], strict=True))]


def cp_tokens(seq, n, rank):
    """The positions of a rank's tokens under zig-zag, in order; None if the sequence cannot be cut so."""
    if seq % (2 * n):
        return None
    chunk = seq // (2 * n)
    return [c * chunk + i for c in (rank, 2 * n - 1 - rank) for i in range(chunk)]


def ep_splits(chosen, experts, n):
    """How many copies a rank sends to each of n ranks, where rank r has experts r E/n to (r + 1) E/n - 1."""
    counts = [0] * n
    for token in chosen:
        for expert in token:
            counts[expert * n // experts] += 1
    return counts


def _not_rescaled(one, other):
    return [max(one[0], other[0]), one[1] + other[1], one[2] + other[2]]


def _divided(one, other):
    top, total, out = cp_merge(one, other)
    return [top, total, out / total if total else 0.0]


def _two_neighbors(seq, n, rank):
    return None if seq % (2 * n) else list(range(rank * seq // n, (rank + 1) * seq // n))


def _same_side(seq, n, rank):
    if seq % (2 * n):
        return None
    chunk = seq // (2 * n)
    return [c * chunk + i for c in (rank, rank + n) for i in range(chunk)]


def _dealt(chosen, experts, n):
    return [sum(expert % n == rank for token in chosen for expert in token) for rank in range(n)]


def _tokens(chosen, experts, n):
    return [sum(any(e * n // experts == rank for e in token) for token in chosen) for rank in range(n)]


GAPS: tuple[Exercise, ...] = (
    function_gap(
        cp_tokens,
        tests={
            "Two and four ranks": [(seq, n, rank) for seq, n in ((8, 2), (16, 4)) for rank in range(n)],
            "One and three ranks": [(seq, n, rank) for seq, n in ((6, 1), (18, 3)) for rank in range(n)],
            "What does not divide by 2n is None": [(12, 4, 0), (10, 2, 1), (7, 1, 0)],
        },
        mistakes={
            "Those are consecutive tokens: the last rank computes nearly twice the mean, rank 0 least.": _two_neighbors,
            "The second chunk is counted from the end: who has an early chunk has a late one as well.": _same_side,
        },
    ),
    function_gap(
        cp_merge,
        tests={
            "Two blocks": [((1.0, 2.0, 3.0), (0.5, 1.5, -1.0)), ((-2.0, 1.0, 0.25), (3.0, 4.0, 2.0))],
            "Scores in the hundreds": [((800.0, 1.5, 0.5), (790.0, 2.0, 1.0)), ((-900.0, 1.0, 1.0), (10.0, 3.0, 1.0))],
            "A block that is masked whole": [(NOTHING, (2.0, 1.5, 0.5)), ((2.0, 1.5, 0.5), NOTHING)],
            "Both are": [(NOTHING, NOTHING)],
        },
        mistakes={
            "Each sum is over exp(score - its own largest). Before they are added, both must be lowered by the same.": (
                _not_rescaled
            ),
            "The division comes last, once. Sums can be merged with a third block, a mean alone cannot.": _divided,
        },
    ),
    function_gap(
        ep_splits,
        tests={
            "Some tokens": [(CHOSEN[0], 4, 2), (CHOSEN[1], 6, 3), (CHOSEN[1], 6, 2)],
            "A rank that gets nothing": [(CHOSEN[2], 4, 4), (CHOSEN[2], 8, 2), ([], 4, 2)],
        },
        mistakes={
            "A rank has a run of neighboring experts here, not every n-th one.": _dealt,
            "A token that chose two experts of one rank is sent twice here: each expert gets its copy.": _tokens,
        },
    ),
)
