"""What a wrong sum is made of, on hand-made outcomes of a ring with one mistake."""

import pytest
import torch

from parallel_lab.grading import added
from parallel_lab.grading.added import counted, mistake_in_sum
from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.rank_side import Case
from parallel_lab.trace import Trace

GIVEN = {
    n: list(torch.randn(n, 48 * n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))) for n in (1, 2, 3)
}


def outcome(n, make):
    """`make(own, left, leftmost)` is what a rank made of the tensors of the ring, its own and those to its left."""
    given = GIVEN[n]
    results = [make(*(given[(rank - k) % n] for k in range(n))) for rank in range(n)]
    return Outcome(Case(n), [(one,) for one in given], results, [], Trace(n, ()), lambda _: [sum(given)] * n)


def in_chunks(n, make):
    """`make(rank, chunk, given)` is what `rank` has in `chunk`, of what was given as [rank, chunk]."""
    cut = [torch.stack(one.tensor_split(n)) for one in GIVEN[n]]
    results = [torch.cat([make(rank, chunk, cut) for chunk in range(n)]) for rank in range(n)]
    return Outcome(Case(n), [(one,) for one in GIVEN[n]], results, [], Trace(n, ()), lambda _: [sum(GIVEN[n])] * n)


def whole(cut, chunk):
    return sum(one[chunk] for one in cut)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (outcome(1, lambda own: 2 * own), "Your own tensor is counted 2 times: one rank alone has nothing to add"),
        (outcome(2, lambda own, left: left), "What came in took the place of the sum"),
        (outcome(2, lambda own, left: 2 * own), "Your own tensor was added in place of what came in"),
        (outcome(3, lambda own, left, far: 2 * own + left + far), "Your own tensor came round to you"),
        (outcome(3, lambda own, left, far: own + left + 2 * far), "tensor of rank 1 is counted 2 times: pass on what"),
        (outcome(3, lambda own, left, far: own + 2 * left), "tensor of rank 2 came in again and again"),
        (outcome(3, lambda own, left, far: own + left), "tensor of rank 1 never came"),
        (in_chunks(3, lambda r, c, cut: whole(cut, c) if c == r else cut[r][c]), "finished on some rank, and not on"),
        (in_chunks(3, lambda r, c, cut: whole(cut, c) + (cut[r][c] if c == 1 else 0)), added.REPLACES),
        (
            in_chunks(3, lambda r, c, cut: whole(cut, c) if c != 1 else cut[1][c]),
            "No rank has the whole sum of chunk 1",
        ),
        (in_chunks(3, lambda r, c, cut: whole(cut, (c + 1) % 3)), "In chunk 0 there is what belongs in chunk 1"),
    ],
)
def test_mistake_of_a_ring_is_named(seen, said):
    assert said in mistake_in_sum(seen, 0)


def test_what_is_added_is_counted_exactly():
    counts = counted(in_chunks(2, lambda r, c, cut: 3 * cut[1][0] if (r, c) == (0, 1) else whole(cut, c)))
    assert counts is not None and counts.tolist() == [
        [[[1, 1], [0, 0]], [[0, 3], [0, 0]]],
        [[[1, 1], [0, 0]], [[0, 0], [1, 1]]],
    ]


@pytest.mark.parametrize(
    "seen",
    [
        outcome(2, lambda own, left: own * left),  # no sum
        outcome(2, lambda own, left: own - left),
        outcome(2, lambda own, left: torch.full_like(own, torch.nan)),
        outcome(2, lambda own, left: own[:-1]),
        outcome(2, lambda own, left: None),
        outcome(1, lambda own: 0.5 * own),
    ],
)
def test_what_is_none_of_these_is_not_called_so(seen):
    assert mistake_in_sum(seen, 0) == ""
