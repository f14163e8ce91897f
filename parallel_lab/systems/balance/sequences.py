"""Sequences of unequal length dealt to ranks, so that all are done at about the same time.

What a rank has to do is not the number of its sequences. A causal decoder of width h, with a feed-forward part of 4 h
and as many key heads as query heads, does for each token of a sequence of s tokens 72 h^2 FLOPs a layer in its matrices
and 6 h (s + 1) in attention, forward and backward (`model.formulas`; the tables are left out).
In units of what a token costs in the matrices, a sequence costs

    work(s) = s (1 + (s + 1) / (12 h))

so equal numbers of tokens are equal work for short sequences only: at s = 12 h attention costs as much as all the rest.
Memory for activations follows the tokens (with a fused attention), time follows the work; a cut can even out one of
them exactly, and `most` bounds the other.

Rules, for n ranks (the problem that scheduling calls "P || C_max", which is NP-hard):

- `in_order`: equal numbers of sequences, as they come. What a plain sampler does.
- `snake`: sorted by cost and dealt back and forth; equal numbers, and loads that are close.
- `lpt`, longest processing time first: the longest left goes to the rank that would be done with it first. At most
  4/3 - 1/(3n) of the best for equal ranks (Graham 1969).
- `karmarkar_karp`, largest differencing (Karmarkar and Karp 1982): joins the two partial cuts with the largest
  spread, the heavy side of one to the light side of the other.

No cut is below `lower_bound`. Whatever the cut, a gradient counts by tokens (`shared_gradient`). What is dealt out is
one global batch, so its step is the same; `over_steps` also chooses which sequences share a step, which changes the
order of the samples: shuffle large pools, and draw anew each epoch.
"""

import heapq
import math
from collections.abc import Callable, Sequence

from parallel_lab.agree.arguments import whole
from parallel_lab.model.data import shard_sizes
from parallel_lab.model.lengths import draw as draw
from parallel_lab.model.lengths import lengths as lengths
from parallel_lab.model.lengths import lengths_here as lengths_here
from parallel_lab.systems.balance.shares import bounds

Groups = list[list[int]]  # the numbers of each rank's sequences


def work(length: int, width: int) -> float:
    """What a sequence costs a causal decoder of this width, in tokens without attention."""
    return length * (1 + (length + 1) / (12 * width))


def in_order(items: int, ranks: int) -> Groups:
    """Equal numbers of sequences, in the order in which they came."""
    return [list(range(*each)) for each in bounds(shard_sizes(items, ranks))]


def snake(costs: Sequence[float], ranks: int) -> Groups:
    """Sorted, and dealt back and forth: equal numbers of sequences, 0 1 2 2 1 0 0 1 2 on three ranks."""
    groups: Groups = [[] for _ in range(ranks)]
    for place, item in enumerate(_heaviest_first(costs)):
        turn, rank = divmod(place, ranks)
        groups[ranks - 1 - rank if turn % 2 else rank].append(item)
    return groups


def lpt(
    costs: Sequence[float],
    ranks: int,
    *,
    speeds: Sequence[float] | None = None,
    sizes: Sequence[float] | None = None,
    most: float = math.inf,
) -> Groups:
    """The costliest item first, each to the rank that would be done with it first.

    Args:
        costs: of each item.
        ranks: how many share them.
        speeds: of each rank, cost a second; equal by default.
        sizes: of each item, what `most` bounds: tokens, where costs are work. The costs by default.
        most: what a rank may hold in sizes.

    Raises:
        ValueError: an item fits nowhere; another order might have found room for it.
    """
    sizes, speeds = sizes or costs, speeds or [1.0] * whole("ranks", ranks)
    groups: Groups = [[] for _ in range(ranks)]
    load, held = [0.0] * ranks, [0.0] * ranks
    for item in _heaviest_first(costs):
        fits = [rank for rank in range(ranks) if held[rank] + sizes[item] <= most]
        if not fits:
            raise ValueError(f"item {item} of size {sizes[item]} fits on no rank: each may hold {most}")
        rank = min(fits, key=lambda one: (load[one] + costs[item]) / speeds[one])
        groups[rank].append(item)
        load[rank], held[rank] = load[rank] + costs[item], held[rank] + sizes[item]
    return groups


def karmarkar_karp(costs: Sequence[float], ranks: int) -> Groups:
    """Largest differencing: the two partial cuts with the largest spread become one, heavy sides to light ones."""
    heap = []
    for item, cost in enumerate(costs):
        parts = [(cost, [item])] + [(0.0, [])] * (whole("ranks", ranks) - 1)  # heaviest first
        heap.append((-cost, item, parts))
    heapq.heapify(heap)
    serial = len(heap)
    while len(heap) > 1:
        (_, _, one), (_, _, other) = heapq.heappop(heap), heapq.heappop(heap)
        joined = [(a + b, had + more) for (a, had), (b, more) in zip(one, reversed(other), strict=True)]
        joined.sort(key=lambda part: -part[0])
        serial += 1
        heapq.heappush(heap, (joined[-1][0] - joined[0][0], serial, joined))
    return [sorted(items) for _, items in heap[0][2]] if heap else [[] for _ in range(ranks)]


def over_steps(costs: Sequence[float], ranks: int, steps: int) -> list[Groups]:
    """A pool of sequences cut into steps of `ranks` loads each: by LPT, and loads that are alike in one step."""
    groups = lpt(costs, ranks * whole("steps", steps))
    groups.sort(key=lambda group: sum(costs[item] for item in group))
    return [groups[step * ranks : (step + 1) * ranks] for step in range(steps)]


def loads(groups: Groups, costs: Sequence[float]) -> list[float]:
    """What each rank has to do."""
    return [sum(costs[item] for item in group) for group in groups]


def lower_bound(costs: Sequence[float], ranks: int) -> float:
    """No cut over equal ranks has a largest load below this.

    The mean is one bound, the costliest item another. A third: of the i n + 1 costliest items some rank has i + 1, so
    it does at least what the i + 1 cheapest of them cost.
    """
    ordered = sorted(costs, reverse=True)
    some_rank = (sum(ordered[i * ranks - i : i * ranks + 1]) for i in range((len(ordered) - 1) // ranks + 1))
    return max(sum(ordered) / ranks, *some_rank)


def excess(groups: Groups, costs: Sequence[float]) -> float:
    """By what share the largest load is above the lower bound: 0.03 for 3 %."""
    return max(loads(groups, costs)) / lower_bound(costs, len(groups)) - 1


def microbatches(group: Sequence[int], lengths: Sequence[int], most: int) -> Groups:
    """A rank's sequences in microbatches padded to their longest: sorted, each of at most `most` tokens with padding.

    A sequence that is longer than `most` stands alone.
    """
    batches: Groups = []
    for item in sorted(group, key=lambda one: -lengths[one]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= most:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def padding(batches: Groups, lengths: Sequence[int]) -> float:
    """The share of padding in all places of microbatches that are padded to their longest."""
    places = sum(len(batch) * max(lengths[item] for item in batch) for batch in batches)
    return 1 - sum(lengths[item] for batch in batches for item in batch) / places


def _heaviest_first(costs: Sequence[float]) -> list[int]:
    return sorted(range(len(costs)), key=lambda item: -costs[item])


Rule = Callable[[Sequence[float], int], Groups]
RULES: dict[str, Rule] = {
    "in order": lambda costs, ranks: in_order(len(costs), ranks),
    "snake": snake,
    "LPT": lpt,
    "Karmarkar-Karp": karmarkar_karp,
}
