"""`near_duplicates`: only inside a rank, a salted hash, one band, no verification, an estimate, and a gather."""

import zlib
from functools import partial

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

by_value(__name__)
NAME = "near_duplicates"
SPACE = solutions(NAME)
table, exchange, to, gathered, candidates, verified, owner = (
    SPACE[name] for name in ("table", "exchange", "to", "gathered", "candidates", "verified", "owner")
)
PRIME = 2**31 - 1
near_duplicates = SPACE[NAME]


def number_of(rows):
    return zlib.crc32(rows.numpy().tobytes())


def signed(documents, factors, summands):
    return [((items[:, None] * factors + summands) % PRIME).amin(0) for items in documents]


def keyed(documents, first, factors, summands, bands, key=number_of, first_bands=None):
    rows = []
    for number, signature in enumerate(signed(documents, factors, summands), first):
        for band, part in list(enumerate(signature.view(bands, -1)))[:first_bands]:
            rows.append((key(part) % 2**40 * bands + band, number))
    return table(rows, 2)


def answer(documents, factors, summands, bands, least, key=number_of, first_bands=None, look=verified, meet=to):
    """The solution with a part of it done in another way."""
    rank, n = dist.get_rank(), dist.get_world_size()
    counts = gathered(table([len(documents)], 1))[:, 0]
    firsts = [0, *counts.cumsum(0).tolist()]
    own = keyed(documents, firsts[rank], factors, summands, bands, key, first_bands)
    found = candidates(meet(own, own[:, 0] % n)[0])
    mine = to(found, owner(found[:, 0], firsts))[0].unique(dim=0)
    return sorted(map(tuple, gathered(look(mine, documents, firsts, least)).tolist()))


def stays(rows, owners):
    return rows, [len(rows)]


def salted(rows):
    return hash(rows.numpy().tobytes())


def not_verified(pairs, documents, firsts, least):
    return pairs


def signatures_to_all(documents, factors, summands, bands, least):
    """Every rank gets all signatures and finds the candidates by itself; sets are fetched as they should."""
    rank = dist.get_rank()
    counts = gathered(table([len(documents)], 1))[:, 0]
    firsts = [0, *counts.cumsum(0).tolist()]
    mine = signed(documents, factors, summands)
    every = gathered(torch.stack(mine) if mine else table([], len(factors)))
    rows = [
        (number_of(part) * bands + band, number)
        for number, signature in enumerate(every)
        for band, part in enumerate(signature.view(bands, -1))
    ]
    found = candidates(table(rows, 2))
    own = found[(owner(found[:, 0], firsts) == rank)]
    return sorted(map(tuple, gathered(verified(own, documents, firsts, least)).tolist()))


inside_a_rank = partial(answer, meet=stays)
CHEATS = [  # (answer, the test that sees through it, what it says)
    (inside_a_rank, 0, r"at 2 ranks: rank 0 did not find (\d+) of 16 pairs, \1 of them on different ranks.*\n.*owner"),
    (
        partial(answer, key=salted),
        0,
        r"of them on different ranks, as .*\n.*the same number in every process",
    ),
    (partial(answer, first_bands=1), 0, r"did not find \d+ of 16 pairs.*\n.*In how many bands may two documents meet"),
    (partial(answer, look=not_verified), 1, r"returned \d+ pairs too many, as .* index 0.[57]\d\n.*makes a candidate"),
    (signatures_to_all, 3, r"rank \d sent .*; keys to their owners .* all signatures to all ranks .*\n.*to the owner"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def by_objects(documents, factors, summands, bands, least):
    """Not a cheat: the key of a band is arithmetic on its rows."""
    weights = torch.arange(1, len(factors) // bands + 1) * 1_000_003
    return answer(documents, factors, summands, bands, least, key=lambda rows: int((rows * weights).sum()) % PRIME)


def test_another_right_answer_passes():
    assert_passes(NAME, by_objects)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, partial(answer, look=not_verified), "pairs too many")
    assert_ends_a_step(NAME, 2, signatures_to_all, "keys to their owners and the sets of candidates")
