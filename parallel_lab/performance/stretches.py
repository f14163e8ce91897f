"""Stretches of time, in whole nanoseconds: what is covered, what is shared, what is left."""

from collections.abc import Iterable, Sequence
from itertools import chain

Stretch = tuple[int, int]  # from, to, in nanoseconds


def to_ns(time_s: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(time_s * 1e9)


def union(pairs_s: Iterable[tuple[float, float]]) -> list[Stretch]:
    """Stretches of seconds as sorted, disjoint ones of nanoseconds."""
    found: list[Stretch] = []
    for start, end in sorted((to_ns(a), to_ns(b)) for a, b in pairs_s):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > start:
            found.append((start, end))
    return found


def shared(these: Sequence[Stretch], those: Sequence[Stretch]) -> list[Stretch]:
    """Where both are; both sorted and disjoint."""
    found, i, j = [], 0, 0
    while i < len(these) and j < len(those):
        start, end = max(these[i][0], those[j][0]), min(these[i][1], those[j][1])
        if start < end:
            found.append((start, end))
        if these[i][1] < those[j][1]:
            i += 1
        else:
            j += 1
    return found


def without(these: Sequence[Stretch], those: Sequence[Stretch]) -> list[Stretch]:
    """Where the first are and the second are not."""
    edges = [-(10**30), *chain.from_iterable(those), 10**30]
    return shared(these, [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b])


def length(stretches: Iterable[Stretch], window: Stretch) -> int:
    """Nanoseconds of them that lie in the window."""
    return sum(max(0, min(end, window[1]) - max(start, window[0])) for start, end in stretches)
