"""The gaps of chapter 16: what a power cut leaves, the newest whole checkpoint, the next samples, a suspicion."""

import math

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

SAVE = ("write", "sync file", "rename", "sync folder")
UNSYNCED = ("write", "rename")
WHOLE = {"rank-0": (9, 9), "rank-1": (4, 4)}
FLIPPED, MISSING = {"rank-0": (9, 9), "rank-1": (4, 5)}, {"rank-0": (9, 9), "rank-1": (4, None)}


def fault_may_find(steps):
    """What a power cut after these steps may leave under the file's name: of "new", "old" and "torn", in this order."""
    if "rename" not in steps:
        return ["old"]
    found = ["new"]
    if "sync folder" not in steps[steps.index("rename") :]:
        found.append("old")
    return found if "sync file" in steps else [*found, "torn"]


def fault_newest_whole(checkpoints):
    """The step of the newest checkpoint whose files all have their checksum; None where there is none."""
    whole = (step for step, files in checkpoints.items() if all(meant == found for meant, found in files.values()))
    return max(whole, default=None)


def fault_positions(position, count, rank, ranks):
    """`first`, `last`: a rank trains on the positions between, without `last`; contiguous, the first shares larger."""
    size, larger = divmod(count, ranks)
    first = position + rank * size + min(rank, larger)
    return first, first + size + (rank < larger)


def fault_phi(silent_s, mean_s, deviation_s):
    """The suspicion after a silence: -log10 of the chance that a beat comes later still, gaps normally distributed."""
    return -math.log10(math.erfc((silent_s - mean_s) / deviation_s / math.sqrt(2)) / 2)


def _atomic(steps):
    return ["new"] if "rename" in steps else ["old"]


def _no_folder(steps):
    return ["old"] if "rename" not in steps else ["new"] if "sync file" in steps else ["new", "torn"]


def _no_torn(steps):
    return [each for each in fault_may_find(steps) if each != "torn"]


def _newest(checkpoints):
    return max(checkpoints, default=None)


def _all_there(checkpoints):
    there = (step for step, files in checkpoints.items() if all(found is not None for _, found in files.values()))
    return max(there, default=None)


def _last_written(checkpoints):
    whole = [step for step, files in checkpoints.items() if all(meant == found for meant, found in files.values())]
    return whole[-1] if whole else None


def _from_zero(position, count, rank, ranks):
    return fault_positions(0, count, rank, ranks)


def _rounded_down(position, count, rank, ranks):
    size = count // ranks
    return position + rank * size, position + (rank + 1) * size


def _own_position(position, count, rank, ranks):
    first, last = fault_positions(0, count, rank, ranks)
    return position // ranks + first, position // ranks + last


def _natural(silent_s, mean_s, deviation_s):
    return fault_phi(silent_s, mean_s, deviation_s) * math.log(10)


def _both_sides(silent_s, mean_s, deviation_s):
    return -math.log10(math.erfc(abs(silent_s - mean_s) / deviation_s / math.sqrt(2)))


def _sooner(silent_s, mean_s, deviation_s):
    return -math.log10(1 - math.erfc((silent_s - mean_s) / deviation_s / math.sqrt(2)) / 2)


GAPS: tuple[Exercise, ...] = (
    function_gap(
        fault_may_find,
        tests={
            "A save, cut after each of its steps": [(SAVE[:done],) for done in range(5)],
            "Saves that leave something out": [(UNSYNCED,), ((*UNSYNCED, "sync folder"),), (("write", "sync file"),)],
            "A folder that was synced too early": [(("write", "sync file", "sync folder", "rename"),)],
        },
        mistakes={
            "Atomic means that nobody sees half a rename. It does not mean that the disk has it already.": _atomic,
            "The new name stands in the folder. Until that is synced, the disk may still have the old one.": _no_folder,
            "The name may reach the disk before the bytes do, which nobody synced: what is under it then?": _no_torn,
        },
    ),
    function_gap(
        fault_newest_whole,
        tests={
            "The newest one is whole, or has a bit flipped": [
                ({100: WHOLE, 200: WHOLE},),
                ({100: WHOLE, 200: FLIPPED},),
            ],
            "A file is missing": [({100: WHOLE, 200: MISSING},)],
            "Written out of order, after a run was taken back": [({300: FLIPPED, 200: WHOLE, 100: WHOLE},)],
            "None is whole, or there is none": [({100: FLIPPED, 200: MISSING},), ({},)],
        },
        mistakes={
            "The newest may be the one that was being written. Look at every file's checksum.": _newest,
            "A file that is there, and as long as it was, may have a bit flipped: compare the checksums.": _all_there,
            "The last in the list need not be the one of the highest step.": _last_written,
        },
    ),
    function_gap(
        fault_positions,
        tests={
            "The same number of ranks": [(24, 8, rank, 4) for rank in range(4)],
            "Another one, that does not divide the batch": [(24, 8, rank, 3) for rank in range(3)],
            "The beginning": [(0, 8, 1, 2)],
        },
        mistakes={
            "The samples before `position` were trained on already: they would come twice.": _from_zero,
            "Where the ranks do not divide the batch, samples at its end would be left out.": _rounded_down,
            "The position counts the samples of all ranks together, and not those of one.": _own_position,
        },
    ),
    function_gap(
        fault_phi,
        tests={
            "A beat that is late": [(1.5, 1.0, 0.2), (1.2, 1.0, 0.1), (12.0, 10.0, 1.0)],
            "One that is due, or not due yet": [(1.0, 1.0, 0.2), (0.7, 1.0, 0.2)],
        },
        mistakes={
            "The scale is decimal: a suspicion of 1 is wrong once in ten times.": _natural,
            "Only a beat that comes later counts; one that came too early is no reason to suspect.": _both_sides,
            "That is the chance that it would have come by now. Asked is the chance that it is still to come.": _sooner,
        },
    ),
)
