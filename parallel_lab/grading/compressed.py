"""The tasks of chapter 14 on gradients: a hook that compresses, the buckets that it gets, and layers to put in some.

As in `cutting`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.drivers import mark
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case

LOUD, SMALL = 4, 2**-9  # elements that hide others for a while; what is added to these in each step
NEAR = 0.02  # relative: numbers of 16 bits have 8 of precision


@dataclass
class Bucket:
    """What a hook is given: the number of the bucket, and this rank's gradients in it."""

    index: int
    flat: Tensor


def gradients(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Of each step, this rank's gradient of each bucket, float64, of `sizes`; with `narrow`, what `_hidden` makes."""
    if case.get("narrow"):
        return (_hidden(case["sizes"][0], case["steps"]),)
    shape = [case["sizes"]] * case["steps"]
    return ([[torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes] for sizes in shape],)


def _hidden(size: int, steps: int) -> list[list[Tensor]]:
    """bfloat16, one bucket: four elements are loud until the last step, four begin at 1 and get a little in each."""
    made = []
    for step in range(steps):
        vector = torch.zeros(size)
        vector[:LOUD] = 8.0 * (step + 1 < steps)
        vector[LOUD : 2 * LOUD] = SMALL if step else 1.0
        made.append([vector.bfloat16()])
    return made


def exchange(fn: Callable, case: Case, steps: list) -> dict:
    """The hook that `fn(fraction)` makes, called with every bucket of a step, and then waited for."""
    hook, group, seen = fn(case["fraction"]), dist.group.WORLD, {}
    for number, step in enumerate(steps):
        buckets = [Bucket(index, vector.clone()) for index, vector in enumerate(step)]
        mark("step")
        handles = [hook(group, bucket) for bucket in buckets]
        for handle in handles:
            if not hasattr(handle, "wait"):
                raise TypeError(f"the hook returned {handle!r}: expected a handle, an object with wait()")
            handle.wait()
        mark("step_over")
        seen[f"step {number}: bucket"] = [bucket.flat.clone() for bucket in buckets]
    return seen


def sparse_means(outcome: Outcome) -> list:
    """What stands in the buckets after each step.

    Usual mistakes: `sums` are no means, `forget` owes nothing, `shared` mixes up what buckets owe.
    """
    case, ranks = outcome.case, range(outcome.ranks)
    owed: dict = {}
    seen = {}
    for number, of_ranks in enumerate(zip(*(steps for steps, *_ in outcome.inputs), strict=True)):
        means = []
        for index, vectors in enumerate(zip(*of_ranks, strict=True)):
            sent = []
            for rank, vector in zip(ranks, vectors, strict=True):
                key = rank, 0 if case.get("shared") else index
                wanted = vector + (0 if case.get("forget") else owed.get(key, 0))
                sent.append(_largest(wanted, case["fraction"]))
                owed[key] = wanted - sent[-1]
            means.append(sum(sent) / (1 if case.get("sums") else outcome.ranks))
        seen[f"step {number}: bucket"] = means
    return [seen] * outcome.ranks


def _largest(vector: Tensor, fraction: float) -> Tensor:
    """`vector` with zeros in place of all but its largest elements."""
    places = vector.abs().topk(kept(len(vector), fraction)).indices
    return torch.zeros_like(vector).index_copy(0, places, vector[places])


def kept(elements: int, fraction: float) -> int:
    """How many elements are sent."""
    return max(1, ceil(fraction * elements))


def bytes_of(sizes: Iterable[int], fraction: float, item_bytes: int = 8, place_bytes: int = 4) -> int:
    """What a rank's numbers and places are, for all buckets of a step."""
    return sum(kept(size, fraction) * (item_bytes + place_bytes) for size in sizes)


@grader
def adds_up(outcome: Outcome, advice: str) -> None:
    """Of `narrow`: in the last step what was owed comes out, to the precision of bfloat16."""
    last = outcome.case["steps"] - 1
    right = 1.0 + last * SMALL
    for rank, result in enumerate(outcome.results):
        got = result[f"step {last}: bucket"][0][LOUD : 2 * LOUD].double()
        if (got - right).abs().max() > NEAR * right:
            worst = got[(got - right).abs().argmax()].item()
            seen = (
                f"{outcome.at}: rank {rank}, step {last}: elements that were owed 1 and {last} times {SMALL:g} come out"
            )
            raise Wrong(f"{seen} as {worst:.4g}, expected {right:.4g}", advice if worst else "They were never sent.")


def layers(dice: random.Random, links: tuple[tuple[float, float], ...], repeated: int = 1) -> list[tuple]:
    """Calls of `choose_buckets`: for each link, (latency in s, bytes per s), so many models of 12 to 20 layers."""
    calls = []
    for latency_s, bytes_per_s in links * repeated:
        count, n = dice.randint(12, 20), dice.choice((4, 8, 16, 64))
        drawn = [10 ** dice.uniform(0, 1.6) for _ in range(count)]
        whole = dice.uniform(80e6, 120e6)  # more than one bucket of PyTorch's
        sizes = [round(whole * each / sum(drawn)) for each in drawn]
        # Backward computes about as long as a ring with no latency sends, so that a good cut can hide much.
        whole_s = dice.uniform(0.5, 1.5) * 2 * sum(sizes) / bytes_per_s
        shares = [dice.uniform(0.5, 1.5) for _ in sizes]
        calls.append((sizes, [whole_s * share / sum(shares) for share in shares], n, latency_s, bytes_per_s))
    return calls
