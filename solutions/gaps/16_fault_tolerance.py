"""The gaps of chapter 16, solved."""

import math


def fault_may_find(steps):
    if "rename" not in steps:
        return ["old"]
    after = steps[steps.index("rename") + 1 :]
    found = ["new"] if "sync folder" in after else ["new", "old"]
    return found if "sync file" in steps else [*found, "torn"]


def fault_newest_whole(checkpoints):
    for step in sorted(checkpoints, reverse=True):
        if all(meant == found for meant, found in checkpoints[step].values()):
            return step
    return None


def fault_positions(position, count, rank, ranks):
    size, larger = divmod(count, ranks)
    first = position + rank * size + min(rank, larger)
    return first, first + size + (rank < larger)


def fault_phi(silent_s, mean_s, deviation_s):
    late = (silent_s - mean_s) / deviation_s
    return -math.log10(0.5 * math.erfc(late / math.sqrt(2)))
