"""The gaps of chapter 10, solved."""

import math


def cp_tokens(seq, n, rank):
    if seq % (2 * n):
        return None
    chunk = seq // (2 * n)
    early, late = rank * chunk, (2 * n - 1 - rank) * chunk
    return [*range(early, early + chunk), *range(late, late + chunk)]


def cp_merge(one, other):
    top = max(one[0], other[0])
    if top == -math.inf:
        return [top, 0.0, 0.0]
    first, second = math.exp(one[0] - top), math.exp(other[0] - top)
    return [top, first * one[1] + second * other[1], first * one[2] + second * other[2]]


def ep_splits(chosen, experts, n):
    each = experts // n
    copies = [expert // each for token in chosen for expert in token]
    return [copies.count(rank) for rank in range(n)]
