"""The gaps of chapter 07: the bytes of three ways to be parallel, and the slowest stage."""

from itertools import combinations, pairwise
from random import Random

from parallel_lab.grading.gaps.forms import function_gap


def step_bytes(parameters, layers, width, tokens, n, item_bytes):
    """Bytes that a rank sends per step under data, tensor and pipeline parallelism."""
    return _three(parameters, layers, width, tokens, n, item_bytes)


def slowest_stage(costs, p):
    """The least possible cost of the slowest of `p` stages of neighboring layers."""
    layers = len(costs)
    cuts = ((0, *inner, layers) for inner in combinations(range(1, layers), p - 1))
    return min(max(sum(costs[a:b]) for a, b in pairwise(cut)) for cut in cuts)


def _three(parameters, layers, width, tokens, n, item_bytes, per_layer=4, ring=2, ways=2):
    activation = tokens * width * item_bytes
    return {
        "data": ring * (n - 1) / n * parameters * item_bytes,
        "tensor": per_layer * layers * ring * (n - 1) / n * activation,
        "pipeline": ways * activation,
    }


def _with(**other):
    return lambda *call: _three(*call, **other)


def _equal_counts(costs, p):
    bounds = [k * len(costs) // p for k in range(p + 1)]
    return max(sum(costs[a:b]) for a, b in pairwise(bounds))


def _greedy(costs, p):
    """Fills each stage until it has its share of the whole."""
    stages, share = [[]], sum(costs) / p
    for cost in costs:
        if len(stages) < p and stages[-1] and sum(stages[-1]) + cost > share:
            stages.append([])
        stages[-1].append(cost)
    return max(map(sum, stages))


def _drawn(dice: Random) -> list[tuple]:
    sizes = [(dice.randint(5, 9), dice.randint(2, 4)) for _ in range(6)]
    return [([dice.randint(1, 30) for _ in range(layers)], p) for layers, p in sizes]


GAPS = (
    function_gap(
        step_bytes,
        tests={
            "One replica of a small model": [(1_000_000, 4, 64, 128, 2, 4), (1_000_000, 4, 64, 512, 2, 4)],
            "Llama 3 70B and 8B in bfloat16": [
                (70_553_706_496, 80, 8192, 8192, 8, 2),
                (8_030_261_248, 32, 4096, 8192, 4, 2),
            ],
            "One rank has nobody to reduce with; its stage is a middle one all the same": [(1000, 2, 8, 16, 1, 4)],
        },
        mistakes={
            "A layer has two all-reduces in the forward pass, and how many in the backward pass?": _with(per_layer=2),
            "A ring all-reduce is a reduce-scatter and an all-gather.": _with(ring=1),
            "A middle rank sends an activation on, and what does it send back?": _with(ways=1),
        },
    ),
    function_gap(
        slowest_stage,
        tests={
            "Equal layers": [([5] * 8, 4), ([3] * 6, 3), ([7], 1)],
            "A large last layer, as the head of a language model": [([2, 2, 2, 2, 2, 8], 2), ([0, 4, 4, 4, 4, 9], 3)],
            "Any costs": _drawn,
        },
        mistakes={
            "That counts layers. The stages are to cost the same, not to have as many layers.": _equal_counts,
            "Filling one stage after the other up to the mean does not look ahead. Compare all last cuts.": _greedy,
        },
    ),
)
