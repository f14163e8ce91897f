"""Pieces of parameters, without ranks: any cut, read from any other, against the elements counted one by one."""

import itertools

import pytest
import torch

from parallel_lab.hybrid.pieces import Place, shared
from parallel_lab.tensor_parallel.linear import Cut

SHAPES = [(6, 4), (7, 4), (5, 6), (8,), (2, 3, 4)]


def cuts(shape):
    yield None, 1
    for parts in (2, 3):
        yield Cut(0, shape[0], parts), parts  # also one that does not divide, and is padded
    yield Cut(0, shape[0], 1, copies=2), 2
    for dim in range(1, len(shape)):
        for parts in (2, 3):
            if shape[dim] % parts == 0:
                yield Cut(dim, shape[dim], parts), parts


def pieces(whole, cut, ranks, stretches):
    """(place, vector) of all ranks, each of whose parts is cut into stretches again, as ZeRO does."""
    for rank in range(ranks):
        held = (cut.part(whole, rank) if cut else whole).reshape(-1)
        for k in range(stretches):
            start, stop = len(held) * k // stretches, len(held) * (k + 1) // stretches
            place = Place.of(whole.shape, cut, rank, start, stop)
            yield place, held[start : start + place.elements].clone()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_cut_reads_any_other(shape):
    whole = torch.arange(1, torch.Size(shape).numel() + 1).view(shape)
    layouts = [(cut, ranks, n) for (cut, ranks), n in itertools.product(cuts(shape), (1, 2, 5))]
    for saved, wanted in itertools.product(layouts, layouts):
        if saved[0] and wanted[0] and saved[0].dim != wanted[0].dim:
            continue  # no technique cuts one parameter along two dimensions
        sources = dict(pieces(whole, *saved))  # copies of the same piece fall together
        for mine, expected in pieces(whole, *wanted):
            found, count = torch.zeros_like(expected), 0
            for theirs, values in sources.items():
                for each in shared(mine, theirs, whole.numel()):
                    each.copy(found, values)
                    count += each.elements
            assert torch.equal(found, expected), (saved, wanted, mine)
            assert count == mine.elements, "each element once"


def test_a_piece_is_three_rectangles_at_most():
    for shape in SHAPES:
        for (cut, ranks), n in itertools.product(cuts(shape), (1, 2, 3, 5, 7)):
            for place, _ in pieces(torch.zeros(shape), cut, ranks, n):
                for width in {place.columns[2]} if place.columns else (1, 2, 3, 4, 12, 24):
                    assert len(list(place.rectangles(width))) <= 3


def test_padding_is_in_no_piece():
    whole, cut = torch.ones(5, 3), Cut(0, 5, 4)  # rows 2 2 1 0
    assert [Place.of(whole.shape, cut, rank, 0, 6).elements for rank in range(4)] == [6, 6, 3, 0]
    assert [Place.of(whole.shape, cut, 2, *ends).elements for ends in ((0, 2), (2, 4), (4, 6))] == [2, 1, 0]


def test_two_dimensions_do_not_meet():
    with pytest.raises(ValueError, match=r"another dimension.*rows of \[4, 24\]"):
        shared(Place(0, 4, (0, 2, 4)), Place(0, 4, (0, 2, 24)), 24)
