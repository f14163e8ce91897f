"""Duplicates over ranks: each rank has its own documents, and no rank ever sees all of them.

Exact: the hash of a document goes to the rank that owns it, 16 bytes a document; the owner says which copy stays.
Near, in four exchanges:

1. bands: each document's `bands` keys go to their owners, 16 bytes a key (`minhash`); documents that share a key are
   candidates. Sending all signatures to all ranks would move world - 1 times 8 * bands * rows bytes a document.
2. pairs: the owner of a key tells the rank of the first document of each candidate pair.
3. verification: this rank fetches the shingles of the second document and computes the Jaccard index itself.
4. clusters: the pairs that hold are few, so all ranks gather them, and each finds the same connected components.

A document's number is its place in the documents of all ranks in rank order. So the result does not depend on how many
ranks there are, and the copy that stays is the first one. Lee et al. 2021, "Deduplicating training data makes language
models better", is the paper on why.

A band key that all documents share, as that of a license text, makes a bucket of many documents and all their pairs.
Exact duplicates go first, so that the copies of one text are not in it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate, combinations
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.systems.data.exchange import by_owner, exchange, gathered, key_of, table
from parallel_lab.systems.data.minhash import Shingles, band_keys, jaccard, shingles, signatures

Pair = tuple[int, int]


def numbering(count: int, group: dist.ProcessGroup | None = None) -> list[int]:
    """The number of each rank's first document, and of all documents at the end, where this rank has `count`."""
    counts = [int(rows) for rows in torch.cat(gathered(table([count], 1), group=group))]
    return [0, *accumulate(counts)]


def exact(documents: Sequence[str | bytes], *, group: dist.ProcessGroup | None = None) -> list[bool]:
    """Which of this rank's documents stay: of equal ones the first over all ranks."""
    world, first = dist.get_world_size(group), numbering(len(documents), group)[dist.get_rank(group)]
    rows = table([(key_of(text), first + place) for place, text in enumerate(documents)], 2)
    came = exchange(by_owner(rows, rows[:, 0] % world, world), group=group)
    seen: set[int] = set()
    answers = []
    for part in came:  # in the order of ranks, and so of numbers
        answers.append([])
        for key, number in part.tolist():
            if key in seen:
                answers[-1].append(number)
            seen.add(key)
    doubled = torch.cat(exchange([table(answer, 1) for answer in answers], group=group))
    return [first + place not in set(doubled[:, 0].tolist()) for place in range(len(documents))]


class Near(NamedTuple):
    """What near-duplicate detection found, the same on every rank."""

    pairs: dict[Pair, float]  # document numbers, the lower first, and their Jaccard index
    candidates: int  # how many pairs shared a band
    clusters: list[list[int]]  # the numbers of documents that belong together, each list sorted, by its first


def near(
    documents: Sequence[str],
    *,
    least: float = 0.8,
    bands: int = 20,
    rows: int = 5,
    width: int = 3,
    seed: int = 0,
    group: dist.ProcessGroup | None = None,
) -> Near:
    """The pairs of documents, of all ranks, whose sets of shingles have a Jaccard index of `least` or more.

    Args:
        documents: this rank's own.
        least: the index from which on two are near duplicates; `minhash.threshold(bands, rows)` lies below it.
        bands: of a signature.
        rows: minima of a band.
        width: words of a shingle.
        seed: of the hash functions.
        group: of ranks.
    """
    firsts = numbering(len(documents), group)
    first = firsts[dist.get_rank(group)]
    sets = [shingles(text, width) for text in documents]
    candidates = _candidates(sets, first, bands, rows, seed, group)
    mine = _at_first(candidates, firsts, group)
    verified = _verified(mine, sets, firsts, least, group)
    count = torch.tensor([len(mine)])
    dist.all_reduce(count, group=group)
    found = torch.cat(gathered(verified, group=group)).tolist()
    pairs = {(one, other): index / 2**53 for one, other, index in sorted(found)}
    return Near(pairs, int(count), components(pairs))


def _candidates(
    sets: list[Shingles], first: int, bands: int, rows: int, seed: int, group: dist.ProcessGroup | None
) -> Tensor:
    """The pairs of documents that share a key that this rank owns."""
    world = dist.get_world_size(group)
    keyed = [
        (key, first + place)
        for place, signed in enumerate(signatures(sets, bands * rows, seed))
        for key in band_keys(signed, bands)
    ]
    sent = table(keyed, 2)
    buckets: dict[int, list[int]] = defaultdict(list)
    for key, number in torch.cat(exchange(by_owner(sent, sent[:, 0] % world, world), group=group)).tolist():
        buckets[key].append(number)
    return table(sorted({pair for bucket in buckets.values() for pair in combinations(sorted(bucket), 2)}), 2)


def _at_first(pairs: Tensor, firsts: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """The candidate pairs whose first document this rank has, each once."""
    parts = by_owner(pairs, owner(pairs[:, 0], firsts), dist.get_world_size(group))
    return torch.cat(exchange(parts, group=group)).unique(dim=0)


def owner(numbers: Tensor, firsts: list[int]) -> Tensor:
    """The rank that has each document."""
    return torch.searchsorted(torch.tensor(firsts[1:]), numbers.contiguous(), right=True)


def _verified(
    pairs: Tensor, sets: list[Shingles], firsts: list[int], least: float, group: dist.ProcessGroup | None
) -> Tensor:
    """Those of this rank's pairs that hold, with their index in units of 2^-53."""
    world, first = dist.get_world_size(group), firsts[dist.get_rank(group)]
    wanted = pairs[:, 1].unique()
    asked = exchange(by_owner(wanted[:, None], owner(wanted, firsts), world), group=group)
    replies = [[(number, item) for (number,) in part.tolist() for item in sets[number - first]] for part in asked]
    came = torch.cat(exchange([table(reply, 2) for reply in replies], group=group)).numpy()
    held = []
    for one, other in pairs.tolist():
        index = jaccard(sets[one - first], came[came[:, 0] == other, 1])
        if index >= least:
            held.append((one, other, round(index * 2**53)))
    return table(held, 3)


def components(pairs: Iterable[Pair]) -> list[list[int]]:
    """The connected components of the graph whose edges are `pairs`."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent.setdefault(number, number) != number:
            parent[number] = number = parent[parent[number]]
        return number

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    clusters: dict[int, list[int]] = defaultdict(list)
    for number in sorted(parent):
        clusters[root(number)].append(number)
    return list(clusters.values())


def dropped(clusters: Iterable[Sequence[int]], held_out: Iterable[int] = ()) -> set[int]:
    """The numbers of the documents that go, so that no near duplicate is left within a split or across splits.

    Of a cluster in the training split the first stays. Where a cluster has a document that is held out, the first of
    those stays and every training copy goes: the test is kept whole, and training loses the answers to it.

    Args:
        clusters: of near duplicates, over all splits.
        held_out: the numbers of the documents of the held-out split.
    """
    tests = set(held_out)
    gone: set[int] = set()
    for cluster in clusters:
        stays = next((number for number in cluster if number in tests), cluster[0])
        gone |= set(cluster) - {stays}
    return gone


def crossing(clusters: Iterable[Sequence[int]], held_out: Iterable[int]) -> list[list[int]]:
    """The clusters that stand in both splits: what a held-out loss would count as known already."""
    tests = set(held_out)
    return [list(cluster) for cluster in clusters if tests & set(cluster) and set(cluster) - tests]
