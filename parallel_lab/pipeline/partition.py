"""Where to cut a chain of layers into stages: contiguous, so that the slowest stage is as fast as it can be.

Harlap et al. 2018 and Narayanan et al. 2019, "PipeDream: Generalized Pipeline Parallelism for DNN Training", section
3.1, here without replicated stages.

A pipeline is as fast as its slowest stage, so equal numbers of layers are right only if layers are equal: an output
layer over a large vocabulary may cost as much as several blocks. Dynamic programming finds the best cut: the best of
the first i layers in j stages is, over all places of the last cut, the slower of the best before it and of the last
stage. That takes (number of layers)^2 times (number of stages) steps, for costs measured once.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import inf


def partition(costs: Sequence[float], stages: int, messages_s: Sequence[float] = ()) -> list[range]:
    """The layers of each of `stages` stages, such that the slowest stage is fastest.

    Args:
        costs: The seconds of each layer, forward and backward together.
        stages: How many there are to be; p * v for schedules with v chunks a rank.
        messages_s: The seconds of what would cross a cut after each layer, there and back, if it counts. Messages
            travel beside computing, so a link is as good as one more stage: the slowest of both decides.

    Returns:
        For each stage the range of its layers: `layers[one.start : one.stop]`. Of equally good cuts, the earliest.

    Raises:
        ValueError: There are more stages than layers, or fewer than one; a cost is negative; or `messages_s` has not
            one number for each layer but, if you like, the last.
    """
    layers = len(costs)
    _check(costs, stages, messages_s)
    before = [0.0, *accumulate(costs)]
    link_s = [0.0, *(messages_s or [0.0] * layers)]
    best = before  # of the first k layers in as many stages as we are at: the seconds of the slowest
    begins = []  # for each stage after the first and each k: the layer with which the stage begins that ends before k
    for stage in range(1, stages):
        options = [
            min((max(best[cut], link_s[cut], before[k] - before[cut]), cut) for cut in range(stage, k))
            for k in range(stage + 1, layers + 1)
        ]
        none = [(inf, 0)] * (stage + 1)  # too few layers for so many stages
        best, begin = zip(*none, *options, strict=True)
        begins.append(begin)
    found, end = [], layers
    for begin in reversed(begins):
        found.append(range(begin[end], end))
        end = begin[end]
    return [range(end), *reversed(found)]


def _check(costs: Sequence[float], stages: int, messages_s: Sequence[float]) -> None:
    layers = len(costs)
    if not 1 <= stages <= layers:
        raise ValueError(f"{layers} layers make 1 to {layers} stages, not {stages}: each stage needs a layer")
    for name, several in (("costs", costs), ("messages_s", messages_s)):
        if wrong := [one for one in several if not one >= 0]:  # so that not-a-number is caught too
            raise ValueError(f"{name} has {wrong[0]}: seconds are 0 or more")
    if messages_s and len(messages_s) not in (layers - 1, layers):
        raise ValueError(
            f"messages_s has {len(messages_s)} numbers; {layers} layers have {layers - 1} places for a cut"
        )
