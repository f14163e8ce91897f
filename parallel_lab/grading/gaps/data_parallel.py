"""The gaps of chapter 03: the loss of the whole batch, buckets, and the learning rate of a larger batch."""

import torch

from parallel_lab.grading import expect
from parallel_lab.grading.exercise import Exercise, cases, on
from parallel_lab.grading.gaps.forms import function_gap, is_not

COUNTS = cases("counts", ((5,),), ((4, 4),), ((3, 7),), ((1, 2, 9),), ((6, 1, 1, 4),))
EQUALLY = "A sample on a small share would count more than one on a large share. What has to be summed, besides losses?"
DIVIDE = "all_reduce sums; how many samples are there on all ranks?"
ONE = "Two numbers fit in one tensor, and one message costs one latency."


def fill_buckets(sizes, limit):
    """The tensors of each bucket, the last tensor first; one that is larger than `limit` is alone."""
    found, room = [], 0
    for tensor in reversed(range(len(sizes))):
        if not found or sizes[tensor] > room:
            found.append([])
            room = limit
        found[-1].append(tensor)
        room -= sizes[tensor]
    return found


def learning_rate(step, base, factor, warm_up):
    """From `base` in step 0 straight up to `factor * base` in step `warm_up`, and there it stays."""
    return base * (1 + (factor - 1) * min(1, step / warm_up))


def _in_order(sizes, limit):
    last = len(sizes) - 1
    return [[last - tensor for tensor in bucket] for bucket in fill_buckets(sizes[::-1], limit)]


def _overfull(sizes, limit):
    found, held = [], limit
    for tensor in reversed(range(len(sizes))):
        if held >= limit:
            found.append([])
            held = 0
        found[-1].append(tensor)
        held += sizes[tensor]
    return found


GAPS = (
    Exercise(
        name="global_mean",
        gap=True,
        given=lambda case, rank, generator: (
            torch.rand(case["counts"][rank], generator=generator, dtype=torch.float64),
        ),
        expected=lambda outcome: [torch.cat([given[0] for given in outcome.inputs]).mean()] * outcome.ranks,
        tests={
            "Every rank returns the mean over all samples, however they are shared out": on(
                COUNTS,
                is_not(
                    "the mean of the ranks' means",
                    lambda outcome: torch.stack([given[0].mean() for given in outcome.inputs]).mean(),
                    EQUALLY,
                ),
                is_not("the sum", lambda outcome: torch.cat([given[0] for given in outcome.inputs]).sum(), DIVIDE),
                expect.equals("The losses of all samples, divided by how many there are on all ranks."),
                expect.keeps_input(),
            ),
            "With one all-reduce": on(COUNTS[1:], expect.calls("all_reduce", advice=ONE)),
        },
    ),
    function_gap(
        fill_buckets,
        tests={
            "Equal tensors": [([1, 1, 1, 1], 2), ([5] * 7, 15), ([4, 4, 4], 4)],
            "Tensors of any size": lambda dice: [
                ([dice.randrange(1, 9) for _ in range(dice.randrange(1, 12))], 10) for _ in range(20)
            ],
            "One that is larger than a bucket goes alone": [([1, 20, 1], 10), ([20, 3, 3], 10), ([30, 30], 10)],
        },
        mistakes={
            "Whose gradient comes first in the backward pass, the first layer's or the last one's?": _in_order,
            "Look whether a tensor still fits before it is added, not whether the bucket was full before.": _overfull,
        },
    ),
    function_gap(
        learning_rate,
        tests={
            "While it rises": lambda dice: [(step, 0.1, dice.randrange(2, 40), 10) for step in range(10)],
            "Afterwards": lambda dice: [(step, 0.05, dice.randrange(2, 40), 10) for step in (10, 11, 500)],
        },
        mistakes={
            "It begins with the rate that is right for one rank, not with 0.": (
                lambda step, base, factor, warm_up: base * factor * min(1, step / warm_up)
            ),
            "Then it stays: after the warm-up the rate is `factor * base`.": (
                lambda step, base, factor, warm_up: base * (1 + (factor - 1) * step / warm_up)
            ),
            "You added `factor * base` to `base`. At the end of the warm-up the rate is `factor * base`.": (
                lambda step, base, factor, warm_up: base * (1 + factor * min(1, step / warm_up))
            ),
        },
    ),
)
