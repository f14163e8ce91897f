"""The task of chapter 17 on shuffles: shards that come as streams, and what becomes of their samples.

The driver counts what the answer has read and not yet handed on: that is what it holds. Ranks import this module.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise

import torch

from parallel_lab.grading.expect import each_rank, grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case

Sample = list[int]  # its shard and its place there
MIXED = 4  # switches from shard to shard at each border, at least; a buffer makes about as many as it holds


def shards(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """The sizes of all shards, a seed, and how much of an epoch was done before a restart; the same on each rank."""
    same = torch.Generator().manual_seed(generator.initial_seed() // 64)
    low, high = case["sizes"]
    sizes = torch.randint(low, high + 1, (case["shards"],), generator=same).tolist()
    return sizes, int(torch.randint(1000, (), generator=same)), int(torch.randint(3, 2 * low, (), generator=same))


class Watched:
    """Shards to open, one sample at a time; counts what was read of them."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.read = sizes, 0

    def open(self, shard: int) -> Iterator[tuple[int, int]]:
        """The samples of a shard, one after another."""
        for place in range(self.sizes[shard]):
            self.read += 1
            yield shard, place


def stream(fn: Callable, case: Case, sizes: list[int], seed: int, start: int) -> dict:
    """`fn(shards, open_shard, buffer, seed, epoch, start)` for several epochs, and once more from the middle of one."""
    epochs, held = [], 0
    for epoch in range(case["epochs"]):
        watched, samples = Watched(sizes), []
        for sample in fn(len(sizes), watched.open, case["buffer"], seed, epoch, 0):
            held = max(held, watched.read - len(samples))
            samples.append(list(sample))
        epochs.append(samples)
    again = fn(len(sizes), Watched(sizes).open, case["buffer"], seed, 0, start)
    return {"epochs": epochs, "held": held, "again": [list(sample) for sample in again]}


@grader
def once(outcome: Outcome, buffered: str, divided: str) -> None:
    """In each epoch every sample comes on one rank, once."""
    sizes, _, _ = outcome.inputs[0]
    for epoch, of_ranks in enumerate(zip(*(result["epochs"] for result in outcome.results), strict=True)):
        found = Counter(map(tuple, chain.from_iterable(of_ranks)))
        at = f"{outcome.at}, epoch {epoch}"
        if twice := [sample for sample, times in found.items() if times > 1]:
            ranks = [rank for rank, own in enumerate(of_ranks) if list(twice[0]) in own]
            seen = f"{at}: {len(twice)} of {sum(sizes)} samples came more than once"
            raise Wrong(f"{seen}, as number {twice[0][1]} of shard {twice[0][0]} on ranks {ranks}", divided)
        if missing := sum(sizes) - len(found):
            raise Wrong(f"{at}: {missing} of {sum(sizes)} samples never came", buffered)


@each_rank
def bounded(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """A rank holds its buffer, and the sample that just came in."""
    if (held := outcome.results[rank]["held"]) > outcome.case["buffer"] + 1:
        buffer = outcome.case["buffer"]
        raise Wrong(f"{where} had read {held} samples that it had not handed on; its buffer is {buffer}", advice)


@each_rank
def mixed(outcome: Outcome, rank: int, where: str, inside: str, order: str) -> None:
    """Samples of neighboring shards mix, shards come in another order than on disk, and so do samples of a shard."""
    epochs = outcome.results[rank]["epochs"]
    switches = sum(one[0] != other[0] for epoch in epochs for one, other in pairwise(epoch))
    came = [list(dict.fromkeys(shard for shard, _ in epoch)) for epoch in epochs]
    borders = sum(len(shards) - 1 for shards in came)
    if switches < MIXED * borders:
        seen = f"{where} went {switches} times from a sample of one shard to one of another, in {len(epochs)} epochs"
        raise Wrong(f"{seen} with {borders} borders between shards", inside)
    if borders > 2 * len(epochs) and all(shards == sorted(shards) for shards in came):
        raise Wrong(f"{where}: in {len(epochs)} epochs the shards came in the order of their numbers", order)
    kept = [place for shard, place in epochs[0] if shard == came[0][0]]
    if kept == sorted(kept):
        raise Wrong(f"{where}: the samples of shard {came[0][0]} came in the order in which they were read", inside)


@each_rank
def anew_each_epoch(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """No two epochs have the same order."""
    epochs = outcome.results[rank]["epochs"]
    if epochs[0] == epochs[1]:
        raise Wrong(f"{where}: epochs 0 and 1 have the same order", advice)


@each_rank
def goes_on(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """From the middle of an epoch on come the samples that would have come."""
    start, result = outcome.inputs[rank][2], outcome.results[rank]
    right = list(islice(result["epochs"][0], start, None))
    if result["again"] != right:
        pairs = enumerate(zip(result["again"], right, strict=False))
        place = next((number for number, (one, other) in pairs if one != other), None)
        seen = f"{where}: from sample {start} of epoch 0 on came {len(result['again'])} samples, {len(right)} were left"
        raise Wrong(seen + ("" if place is None else f", and number {place} of them is another one"), advice)
