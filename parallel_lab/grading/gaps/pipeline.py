"""The gaps of chapter 09: the share of a step that is bubble, what a rank of 1F1B holds, and where to cut."""

from itertools import combinations, pairwise
from random import Random

from parallel_lab.grading.gaps.forms import function_gap


def bubble_share(p, m, v):
    """The share of a step in which a rank of interleaved 1F1B stands idle: equal stages, messages cost nothing."""
    return (p - 1) / (v * m + p - 1)


def microbatches_held(p, m, r):
    """The most microbatches of activations that rank r of 1F1B holds at once."""
    return min(p - r, m)


def slowest_stage(costs, p):
    """The time of the slowest of p stages under the best contiguous cut."""
    places = combinations(range(1, len(costs)), p - 1)
    return min(max(sum(costs[a:b]) for a, b in pairwise((0, *cuts, len(costs)))) for cuts in places)


def _evenly(costs, p):
    size, more = divmod(len(costs), p)
    ends = [k * size + min(k, more) for k in range(p + 1)]
    return max(sum(costs[a:b]) for a, b in pairwise(ends))


def _greedily(costs, p):
    """Fills each stage up to the mean; what is left is the last one's."""
    stages, mean = [0], sum(costs) / p
    for cost in costs:
        if stages[-1] + cost > mean and len(stages) < p and stages[-1]:
            stages.append(0)
        stages[-1] += cost
    return max(stages)


def _models(dice: Random):
    return [([dice.randint(1, 9) for _ in range(dice.randint(6, 9))], p) for p in (2, 3, 4, 3, 2, 4)]


GAPS = (
    function_gap(
        bubble_share,
        tests={
            "1F1B, which is v = 1": [(4, 8, 1), (8, 32, 1), (16, 16, 1), (1, 4, 1)],
            "With v chunks per rank": [(4, 8, 2), (8, 8, 4), (16, 64, 8)],
        },
        mistakes={
            "That is idle time per *work*. Which share of the whole step is it?": lambda p, m, v: (p - 1) / (v * m),
            "With v chunks per rank a slot is 1/v as long. How many slots of work has a rank then?": (
                lambda p, m, v: (p - 1) / (m + p - 1)
            ),
        },
    ),
    function_gap(
        microbatches_held,
        tests={
            "Rank by rank": [(4, 16, r) for r in range(4)] + [(8, 32, 3), (1, 5, 0)],
            "Where there are few microbatches": [(8, 4, 0), (8, 4, 6), (4, 1, 1)],
        },
        mistakes={
            "That is how many it runs ahead. And the one that is in work?": lambda p, m, r: min(p - 1 - r, m),
            "GPipe holds all of them. When does 1F1B free the first?": lambda p, m, r: m,
            "There are only m microbatches.": lambda p, m, r: p - r,
        },
    ),
    function_gap(
        slowest_stage,
        tests={
            "Equal layers, and a heavy head": [([1] * 8, 4), ([1] * 7, 2), ([1, 1, 1, 1, 1, 1, 1, 5], 4)],
            "Layers of any cost": _models,
            "A cut may not leave a stage empty": [([9, 1, 1], 3), ([3, 3], 2), ([4], 1)],
        },
        mistakes={
            "That cuts by the number of layers. Which stage has the expensive ones?": _evenly,
            "Filling each stage up to the mean leaves the rest to the last one. Try every place of the last cut.": (
                _greedily
            ),
        },
    ),
)
