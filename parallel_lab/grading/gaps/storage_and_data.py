"""The gaps of chapter 17: readers that fill a link, candidates from bands, splitting before cutting."""

import math
from itertools import combinations

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

SIGNATURES = [[1, 2, 3, 4], [1, 2, 9, 9], [9, 1, 2, 4], [1, 9, 3, 4], [3, 4, 1, 2], [1, 7, 3, 8]]
DOCUMENTS = ["abcdefg", "hij", "klmnopqr", "st"]


def data_readers(size, latency_s, bytes_per_s):
    """The fewest readers, each with one request under way, that fill a link with objects of `size` bytes."""
    transfer_s = size / bytes_per_s
    return math.ceil((latency_s + transfer_s) / transfer_s - 1e-9)


def data_candidates(signatures, bands):
    """The pairs (i, j), i < j, that agree in all rows of at least one of `bands` equal bands, sorted."""
    rows = len(signatures[0]) // bands
    return _pairs(signatures, [range(start, start + rows) for start in range(0, rows * bands, rows)])


def data_split_first(documents, held_out, size):
    """Pieces of at most `size` characters to train on, and those held out; split by document, then cut."""
    return tuple([p for text in documents if held_out(text) is out for p in _cut(text, size)] for out in (False, True))


def _cut(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


def _pairs(signatures, bands):
    numbered = combinations(range(len(signatures)), 2)
    return [(i, j) for i, j in numbered if any(all(signatures[i][r] == signatures[j][r] for r in b) for b in bands)]


def _latency_alone(size, latency_s, bytes_per_s):
    return math.ceil(latency_s * bytes_per_s / size)


def _rounded_down(size, latency_s, bytes_per_s):
    return int((latency_s + size / bytes_per_s) * bytes_per_s / size)


def _any_row(signatures, bands):
    return _pairs(signatures, [[row] for row in range(len(signatures[0]))])


def _whole(signatures, bands):
    return _pairs(signatures, [range(len(signatures[0]))])


def _scattered(signatures, bands):
    rows = range(len(signatures[0]))
    return _pairs(signatures, list(combinations(rows, len(rows) // bands)))


def _anywhere(signatures, bands):
    rows = len(signatures[0]) // bands
    keys = [{tuple(s[start : start + rows]) for start in range(0, len(s), rows)} for s in signatures]
    return [(i, j) for i, j in combinations(range(len(keys)), 2) if keys[i] & keys[j]]


def _joined(documents, held_out, size):
    return tuple(_cut("".join(t for t in documents if held_out(t) is out), size) for out in (False, True))


def _cut_first(documents, held_out, size):
    pieces = [piece for text in documents for piece in _cut(text, size)]
    return tuple([piece for piece in pieces if held_out(piece) is out] for out in (False, True))


def _whole_pieces_only(documents, held_out, size):
    return tuple([p for p in pieces if len(p) == size] for pieces in data_split_first(documents, held_out, size))


def _long(text):
    return len(text) > 6


def _early(text):
    return text[0] < "k"


GAPS: tuple[Exercise, ...] = (
    function_gap(
        data_readers,
        tests={
            "Small objects": [(65_536, 5e-3, 200e6), (4096, 1e-3, 100e6), (100_000, 20e-3, 1e9)],
            "An object that fills the link alone, or nearly": [(10**9, 1e-6, 1e9), (10**8, 0.0, 1e9)],
        },
        mistakes={
            "A reader is busy for the latency and for the bytes, so one more is needed.": (_latency_alone),
            "Rounded down, the link is idle for a moment in each round: the fewest that fill it are rounded up.": (
                _rounded_down
            ),
        },
    ),
    function_gap(
        data_candidates,
        tests={
            "Two bands of two rows": [(SIGNATURES, 2)],
            "Four bands of one row, and one of four": [(SIGNATURES, 4), ([[1, 2], [1, 2], [2, 1]], 1)],
        },
        mistakes={
            "One row in common is no band: all rows of a band must agree.": _any_row,
            "Not the whole signature need agree: one band is enough.": _whole,
            "As many rows agree as a band has, and they stand in two bands: a band agrees whole.": _scattered,
            "The same numbers in another band are other hash functions: a band meets only itself.": _anywhere,
        },
    ),
    function_gap(
        data_split_first,
        tests={
            "Documents of several pieces": [(DOCUMENTS, _long, 3), (DOCUMENTS, _early, 4)],
            "Nothing is held out": [(["abcd", "e"], _long, 2)],
        },
        mistakes={
            "A piece has the end of one document and the beginning of the next: cut each document by itself.": _joined,
            "Pieces of one document stand on both sides: ask `held_out` about the document, not a piece.": _cut_first,
            "The last piece of a document is shorter, and it was lost.": _whole_pieces_only,
        },
    ),
)
