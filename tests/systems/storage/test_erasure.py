"""Any k pieces give the data back, and k - 1 do not; the field is one."""

import itertools
import os

import pytest

from parallel_lab.systems.storage import erasure, formulas


@pytest.mark.parametrize(("k", "m"), [(1, 2), (2, 1), (4, 2), (6, 3), (3, 0)])
@pytest.mark.parametrize("size", [0, 1, 47, 600])
def test_any_k_pieces_are_enough(k, m, size):
    data = os.urandom(size)
    pieces = dict(enumerate(erasure.encode(data, k, m)))
    assert b"".join(pieces[number] for number in range(k))[:size] == data, "the first k are the data"
    for left in itertools.combinations(pieces, k):
        assert erasure.decode({number: pieces[number] for number in left}, k, size) == data
    with pytest.raises(ValueError, match=f"{k - 1} pieces are left, and {k} are needed"):
        erasure.decode({number: pieces[number] for number in range(k - 1)}, k, size)


def test_what_is_stored_is_what_the_formula_says():
    pieces = erasure.encode(os.urandom(6000), 10, 4)
    assert sum(map(len, pieces)) == 6000 * formulas.storage_factor(10, 4)
    lost = {number: piece for number, piece in enumerate(pieces) if number not in (0, 3, 7, 12)}
    assert len(lost) == formulas.repair_reads(10, 4)
    assert erasure.encode(erasure.decode(lost, 10, 6000), 10, 4) == pieces


def test_the_code_is_linear():
    first, second, parity = erasure.encode(bytes(range(100)), 2, 1)
    three = erasure.encode(bytes(50) + bytes([1] * 50), 2, 1)[2]
    # the parity of a sum is the sum of the parities
    total = bytes(a ^ b for a, b in zip(bytes(range(100)), bytes(50) + bytes([1] * 50), strict=True))
    assert erasure.encode(total, 2, 1)[2] == bytes(a ^ b for a, b in zip(parity, three, strict=True))
    assert first + second == bytes(range(100))


def test_every_element_but_zero_is_a_power():
    assert sorted(erasure.POWERS[: erasure.FIELD - 1].tolist()) == list(range(1, 256))


def test_a_code_that_does_not_fit_the_field_is_refused():
    for k, m in ((0, 1), (200, 57), (2, -1)):
        with pytest.raises(ValueError, match=rf"RS\({k}, {m}\)"):
            erasure.encode(b"x", k, m)
    pieces = erasure.encode(bytes(range(250)), 200, 56)
    assert erasure.decode({number: pieces[number] for number in range(56, 256)}, 200, 250) == bytes(range(250))
