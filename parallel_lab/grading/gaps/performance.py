"""The gaps of chapter 14: what communication is exposed, the critical batch from two runs, what to compute again."""

from itertools import pairwise

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

COMPUTE = [(0.0, 4.0), (5.0, 9.0)]
PARTS = [(340, 20.0), (2, 0.1), (200, 8.0), (120, 0.5)]  # bytes freed, FLOPs again


def perf_exposed_s(computing, sending):
    """Seconds in which a rank sends and does not compute; stretches (from, to), those of one list may overlap."""
    edges = sorted({edge for stretch in [*computing, *sending] for edge in stretch})

    def covered(stretches, start, end):
        return any(a <= start and end <= b for a, b in stretches)

    return sum(b - a for a, b in pairwise(edges) if covered(sending, a, b) and not covered(computing, a, b))


def perf_critical_batch(one, other):
    """B_crit of the law steps = least (1 + B_crit/B), from two runs to the same loss, each (batch, steps)."""
    (batch, steps), (other_batch, other_steps) = one, other
    return (steps - other_steps) / (other_steps / batch - steps / other_batch)


def perf_recompute(parts, needed):
    """The indices of the parts to compute again, in the order in which one takes them, until enough bytes are free."""
    order = sorted(range(len(parts)), key=lambda i: parts[i][0] / parts[i][1], reverse=True)
    return _until_enough(parts, needed, order)


def _until_enough(parts, needed, order):
    chosen = []
    for i in order:
        if sum(parts[j][0] for j in chosen) >= needed:
            break
        chosen.append(i)
    return chosen


def _sums(computing, sending):
    return max(0.0, sum(b - a for a, b in sending) - sum(b - a for a, b in computing))


def _twice(computing, sending):
    return sum(perf_exposed_s(computing, [stretch]) for stretch in sending)


def _all_sending(computing, sending):
    return perf_exposed_s([], sending)


def _ratio(one, other):
    (batch, steps), (_, other_steps) = one, other
    return batch * steps / other_steps


def _least_steps(one, other):
    critical, (batch, steps) = perf_critical_batch(one, other), one
    return steps / (1 + critical / batch)


def _largest(parts, needed):
    return _until_enough(parts, needed, sorted(range(len(parts)), key=lambda i: -parts[i][0]))


def _cheapest(parts, needed):
    return _until_enough(parts, needed, sorted(range(len(parts)), key=lambda i: parts[i][1]))


GAPS: tuple[Exercise, ...] = (
    function_gap(
        perf_exposed_s,
        tests={
            "One message": [(COMPUTE, [(3.0, 6.0)]), (COMPUTE, [(1.0, 3.0)]), (COMPUTE, [(8.0, 11.0)])],
            "Two at one time": [
                (COMPUTE, [(3.5, 6.0), (4.5, 5.5)]),
                (COMPUTE, [(8.0, 11.0), (9.5, 12.0)]),
            ],
            "Nothing is computed, or nothing sent": [([], [(0.0, 2.0)]), (COMPUTE, [])],
        },
        mistakes={
            "All sending minus all computing hides a message behind computing that ran at another time.": _sums,
            "Where two messages are under way at one time, that time counts once.": _twice,
            "That is all the sending: what runs beside computing costs the step nothing.": _all_sending,
        },
    ),
    function_gap(
        perf_recompute,
        tests={
            "Enough from one part, and from several": [(PARTS, 100), (PARTS, 160), (PARTS, 322)],
            "Nothing is needed, or everything": [(PARTS, 0), (PARTS, 662)],
        },
        mistakes={
            "The largest part frees most, and may cost most: sort by bytes freed per FLOP.": _largest,
            "The cheapest part may free next to nothing: sort by bytes freed per FLOP.": _cheapest,
        },
    ),
    function_gap(
        perf_critical_batch,
        tests={
            "Runs that follow the law": [((16, 300.0), (48, 150.0)), ((64, 1500.0), (256, 1125.0))],
            "In either order": [((256, 1125.0), (64, 1500.0))],
        },
        mistakes={
            "One run less that ratio is no fit: write the law twice, and eliminate the least number of steps.": _ratio,
            "That is the least number of steps, which no batch goes below. The critical batch is asked.": _least_steps,
        },
    ),
)
