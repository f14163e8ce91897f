"""The gaps of chapter 14, solved."""

from itertools import pairwise


def perf_exposed_s(computing, sending):
    edges = sorted({edge for stretch in [*computing, *sending] for edge in stretch})
    exposed = 0.0
    for start, end in pairwise(edges):
        busy, sent = (any(a <= start and end <= b for a, b in each) for each in (computing, sending))
        exposed += (end - start) * (sent and not busy)
    return exposed


def perf_critical_batch(one, other):
    (batch, steps), (other_batch, other_steps) = one, other
    return (steps - other_steps) / (other_steps / batch - steps / other_batch)


def perf_recompute(parts, needed):
    chosen, free = [], 0
    for i in sorted(range(len(parts)), key=lambda i: -parts[i][0] / parts[i][1]):
        if free >= needed:
            break
        chosen.append(i)
        free += parts[i][0]
    return chosen
