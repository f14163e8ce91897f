"""The gaps of chapter 04, solved."""

import math


def partial_seconds(times, needed):
    return sum(sorted(step)[needed - 1] for step in times)


def staleness(order):
    found, read = [], {}
    for version, worker in enumerate(order):
        found.append(version - read.get(worker, 0))
        read[worker] = version + 1
    return found


def count_meetings(counts, every):
    return math.ceil(max(counts) / every)
