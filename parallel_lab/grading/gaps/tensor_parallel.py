"""The gaps of chapter 08: the heads of a rank, the loss of one token from shares, and how far a cut pays."""

import math

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

SHARES = (([1.0, 2.0, 0.5], [3.0, -1.0]), ([0.0], [0.0], [0.0]), ([-2.0, 4.0], [1.0, 1.0], [0.25, 2.5]))
HUGE = (([1000.0, 2000.0], [500.0, 1999.0]), ([-3000.0, 10.0], [900.0]))


def heads_of_rank(heads, kv_heads, n, rank):
    """The query heads and the key-value heads of a rank, as two lists; None if the heads do not divide."""
    if heads % n or (kv_heads % n and n % kv_heads):
        return None
    query = list(range(rank * heads // n, (rank + 1) * heads // n))
    return [query, sorted({head * kv_heads // heads for head in query})]


def loss_of_shares(shares, target):
    """The cross-entropy of one token from the shares of its logits, without an overflow."""
    logits = [logit for share in shares for logit in share]
    top = max(logits)
    return top + math.log(sum(math.exp(logit - top) for logit in logits)) - logits[target]


def most_ranks(width, flops, bytes_per_s, share):
    """The most ranks whose sending, not overlapped, takes at most `share` of a step; None if there is no bound."""
    if share >= 1:
        return None
    return 1 + math.floor(share / (1 - share) * 9 * width * bytes_per_s / (2 * flops) + 1e-9)


def _without_replication(heads, kv_heads, n, rank):
    if heads % n or kv_heads % n:
        return None
    return heads_of_rank(heads, kv_heads, n, rank)


def _dealt(heads, kv_heads, n, rank):
    right = heads_of_rank(heads, kv_heads, n, rank)
    return right and [list(range(rank, heads, n)), sorted({h * kv_heads // heads for h in range(rank, heads, n)})]


def _own_maximum(shares, target):
    logits = [logit for share in shares for logit in share]
    return max(shares[-1]) + math.log(sum(sum(math.exp(x - max(s)) for x in s) for s in shares)) - logits[target]


GAPS: tuple[Exercise, ...] = (
    function_gap(
        heads_of_rank,
        tests={
            "As many key-value heads as query heads": [(8, 8, n, rank) for n in (1, 2, 4) for rank in range(n)],
            "Grouped queries: the key-value heads that the rank's query heads read": [
                (heads, kv, n, rank) for heads, kv, n in ((8, 2, 2), (12, 4, 2), (64, 8, 8)) for rank in range(n)
            ],
            "More ranks than key-value heads: copies": [
                (heads, kv, n, rank) for heads, kv, n in ((8, 2, 4), (6, 1, 3), (64, 8, 16)) for rank in range(n)
            ],
            "What does not divide is None": [(8, 8, 3, 0), (12, 4, 6, 1), (6, 3, 2, 1), (10, 2, 4, 0)],
        },
        mistakes={
            "With more ranks than key-value heads, several ranks can hold the same one.": _without_replication,
            "Rows stand head by head, so a contiguous part of them is a run of neighboring heads.": _dealt,
        },
    ),
    function_gap(
        loss_of_shares,
        tests={
            "The loss of a token": [(shares, target) for shares in SHARES for target in (0, 2)],
            "Logits in the thousands": [(shares, target) for shares in HUGE for target in (0, 2)],
        },
        mistakes={
            "Each share is lowered by its own maximum. Sums can be added only if all are lowered by the same.": (
                _own_maximum
            ),
        },
    ),
    function_gap(
        most_ranks,
        tests={
            "Over NVLink": [(8192, 400e12, 450e9, share) for share in (0.1, 0.2, 0.5)],
            "Over the network, and other widths": [
                (width, 400e12, speed, 0.2) for width in (1024, 4096, 16_384) for speed in (50e9, 300e9)
            ],
            "A share of one is no bound": [(8192, 400e12, 450e9, 1)],
        },
        mistakes={
            "That is sending over computing. The share is sending over the whole step: ratio / (1 + ratio).": (
                lambda width, flops, bytes_per_s, share: (
                    None if share >= 1 else 1 + math.floor(share * 9 * width * bytes_per_s / (2 * flops) + 1e-9)
                )
            ),
        },
    ),
)
