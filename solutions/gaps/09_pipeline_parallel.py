"""The gaps of chapter 09, solved."""

from math import inf


def bubble_share(p, m, v):
    return (p - 1) / (v * m + p - 1)


def microbatches_held(p, m, r):
    return min(p - r, m)


def slowest_stage(costs, p):
    if p == 1:
        return sum(costs)
    best = inf
    for cut in range(p - 1, len(costs)):
        best = min(best, max(slowest_stage(costs[:cut], p - 1), sum(costs[cut:])))
    return best
