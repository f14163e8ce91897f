"""The task of chapter 17 on near duplicates: documents that resemble each other, spread over ranks.

Documents are sets of shingles, already hashed. Most of them resemble nothing. Some are near twins, of which the bands
of the task miss one in 10^7; with `relatives` there are also some that resemble each other too little to count.
While an answer runs, `hash` of text and bytes is another one on each rank, as it is in processes of different machines:
the ranks of one launch are forked from one process, and would share its salt. Ranks import this module.
"""

import builtins
import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.expect import each_rank, size
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import MOST_RANKS, Case, name

PRIME = 2**31 - 1
SHINGLES = 38  # of a document
FEW = 4096  # bytes for sizes and for the pairs that were found


def collection(case: Case, seed: int) -> list[Tensor]:
    """All documents, in rank order; twins stand apart from each other."""
    dice = random.Random(seed)
    fresh = iter(dice.sample(range(PRIME), 2 * SHINGLES * case["documents"]))

    def other(items: list[int], changed: int) -> list[int]:
        return [*dice.sample(items, len(items) - changed), *(next(fresh) for _ in range(changed))]

    # Two sets of 38 of which so many `changed` have an index of (38 - changed) / (38 + changed): 0.90, 0.73, 0.52.
    first = [[next(fresh) for _ in range(SHINGLES)] for _ in range(case["documents"] // 2)]
    second = [[next(fresh) for _ in range(SHINGLES)] for _ in first]
    for place in range(case["twins"]):
        second[place] = other(first[place], 2)
    for place in range(case["twins"], case["twins"] + case.get("relatives", 0)):
        second[place] = other(first[place], 6 if place % 2 else 12)
    dice.shuffle(second)
    return [torch.tensor(sorted(items)) for items in first + second]


def shares(case: Case) -> list[int]:
    """How many documents each rank has: `shares` gives their ratio, cyclic."""
    ratio = [case["shares"][rank % len(case["shares"])] for rank in range(case.ranks)]
    ends = [case["documents"] * sum(ratio[: rank + 1]) // sum(ratio) for rank in range(case.ranks)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def documents(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's documents, and the factors and summands of the hash functions, the same on each rank."""
    seed, counts = generator.initial_seed() // MOST_RANKS, shares(case)
    own = collection(case, seed)[sum(counts[:rank]) : sum(counts[: rank + 1])]
    same = torch.Generator().manual_seed(seed)
    functions = [torch.randint(low, PRIME, (case["bands"] * case["rows"],), generator=same) for low in (1, 0)]
    return own, *functions


def find(fn: Callable, case: Case, own: list[Tensor], factors: Tensor, summands: Tensor) -> list:
    """`fn(documents, factors, summands, bands, least)`."""
    with _salted(dist.get_rank()):
        return fn(own, factors, summands, case["bands"], case["least"])


@contextlib.contextmanager
def _salted(salt: int) -> Iterator[None]:
    """`hash` of what Python salts anew in each process, with a salt of this rank's."""
    plain = builtins.hash

    def hash_of(value: object) -> int:
        return plain((salt, value)) if isinstance(value, str | bytes) else plain(value)

    builtins.hash = hash_of
    try:
        yield
    finally:
        builtins.hash = plain


def index(one: Tensor, other: Tensor) -> float:
    """The Jaccard index of two sets."""
    both = int(torch.isin(one, other).sum())
    return both / (len(one) + len(other) - both)


def pairs(outcome: Outcome) -> list:
    """All pairs of documents with an index of `least` and more, in order, for each rank."""
    every = [document for own, *_ in outcome.inputs for document in own]
    holders = defaultdict(list)
    for number, document in enumerate(every):
        for item in document.tolist():
            holders[item].append(number)
    met = sorted({pair for numbers in holders.values() for pair in combinations(numbers, 2)})
    return [[[a, b] for a, b in met if index(every[a], every[b]) >= outcome.case["least"]]] * outcome.ranks


@each_rank
def finds(outcome: Outcome, rank: int, where: str, across: str, bands: str, verify: str) -> None:
    """Each rank returns all pairs, in order, and none that is no near duplicate."""
    got, right = outcome.results[rank], outcome.expected[rank]
    if not isinstance(got, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in got):
        raise Wrong(f"{where} returned {name(got)}, expected a list of pairs of numbers")
    owners = [owner for owner, count in enumerate(shares(outcome.case)) for _ in range(count)]
    every = [document for own, *_ in outcome.inputs for document in own]
    if missing := [pair for pair in right if pair not in got]:
        apart = [pair for pair in missing if owners[pair[0]] != owners[pair[1]]]
        one, other = (apart or missing)[0]
        at = f"documents {one} (rank {owners[one]}) and {other} (rank {owners[other]})"
        seen = f"{where} did not find {len(missing)} of {len(right)} pairs, {len(apart)} of them on different ranks"
        alone = outcome.ranks > 1 and len(apart) == len(missing) == _apart(right, owners)
        raise Wrong(f"{seen}, as {at}, Jaccard index {index(every[one], every[other]):.2f}", across if alone else bands)
    if more := [pair for pair in got if pair not in right]:
        one, other = more[0]
        fits = 0 <= one < other < len(every)
        said = f"Jaccard index {index(every[one], every[other]):.2f}" if fits else "which is no pair of two documents"
        raise Wrong(f"{where} returned {len(more)} pairs too many, as {one} and {other}, {said}", verify)
    if got != right:
        raise Wrong(f"{where} returned the right pairs in another order, or some twice", "Sort them, each once.")


def _apart(right: list, owners: list[int]) -> int:
    return sum(owners[one] != owners[other] for one, other in right)


@each_rank
def sends_keys(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """A rank sends keys to their owners and the sets that others have to look at, and little else."""
    case, n = outcome.case, outcome.ranks
    keys = 24 * case["bands"] * len(outcome.inputs[rank][0])
    # Each document with a twin or a relative may be fetched; 12 bytes an item leave room for a number beside it.
    sets = 2 * 12 * SHINGLES * min(len(outcome.inputs[rank][0]), 2 * (case["twins"] + case.get("relatives", 0)))
    most, sent = keys + sets + FEW, outcome.trace.bytes_sent(rank)
    if sent > most:
        all_of_them = 8 * case["bands"] * case["rows"] * len(outcome.inputs[rank][0]) * (n - 1)
        needed = f"keys to their owners and the sets of candidates are {size(most)} at the most"
        seen = f"{where} sent {size(sent)}; {needed}"
        raise Wrong(f"{seen}, and all signatures to all ranks {size(all_of_them)}", advice)
