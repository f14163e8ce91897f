"""An erasure code: pieces of data and of parity, of which any give all back, as many as there are of data.

Reed, Solomon, "Polynomial Codes over Certain Finite Fields", 1960. There are `needed` pieces of data. Their bytes j
are the values of a polynomial of degree below `needed` at the points 0 .. needed - 1. The pieces of parity are its
values at the points that follow. Any `needed` values determine the polynomial, so any `needed` pieces give back the
others, by Lagrange's formula. Numbers are those of the field with 256 elements, so that each is a byte: there a sum is
an exclusive or.

This is the code itself, for reading and for small data. Storage systems run it with tables in the processor's vector
registers.
"""

from collections.abc import Mapping

import numpy as np

FIELD = 256
POLYNOMIAL = 0x11D  # powers 8, 4, 3, 2 and 0 of its variable: modulo it the powers of 2 are all elements but 0


def _powers() -> tuple[np.ndarray, np.ndarray]:
    """The powers of 2, twice over, and the logarithm of each element."""
    powers, logs = np.zeros(2 * FIELD, dtype=np.uint8), np.zeros(FIELD, dtype=np.int64)
    value = 1
    for exponent in range(FIELD - 1):
        powers[exponent] = powers[exponent + FIELD - 1] = value
        logs[value] = exponent
        value = value << 1 ^ (POLYNOMIAL if value & 0x80 else 0)
    return powers, logs


POWERS, LOGS = _powers()


def encode(data: bytes, needed: int, parity: int) -> list[bytes]:
    """The needed + parity pieces; the first `needed` hold the data itself, filled up with zeros.

    Raises:
        ValueError: there is no piece of data, or there are more pieces than the field has points.
    """
    if needed < 1 or parity < 0 or needed + parity > FIELD:
        raise ValueError(f"RS({needed}, {parity}): expected 1 piece of data or more, and {FIELD} pieces at most")
    length = -(-len(data) // needed)
    cut = [data[i * length : (i + 1) * length].ljust(length, b"\0") for i in range(needed)]
    pieces = {i: np.frombuffer(each, np.uint8) for i, each in enumerate(cut)}
    return [_value(pieces, at).tobytes() for at in range(needed + parity)]


def decode(pieces: Mapping[int, bytes], needed: int, size: int) -> bytes:
    """The data from as many of its pieces as are needed, by number.

    Args:
        pieces: what is left.
        needed: how many pieces of data there were.
        size: the bytes of the data.

    Raises:
        ValueError: fewer than `needed` are left.
    """
    if len(pieces) < needed:
        raise ValueError(f"{len(pieces)} pieces are left, and {needed} are needed")
    known = {number: np.frombuffer(pieces[number], np.uint8) for number in sorted(pieces)[:needed]}
    return b"".join(_value(known, at).tobytes() for at in range(needed))[:size]


def _value(known: Mapping[int, np.ndarray], at: int) -> np.ndarray:
    """The polynomial through the known pieces, at another point: Lagrange's sum, all bytes of a piece at once."""
    if at in known:
        return known[at]
    total = np.zeros_like(next(iter(known.values())))
    for point, piece in known.items():
        others = [other for other in known if other != point]
        # the product of (at - other) / (point - other); a difference is an exclusive or as well
        log = sum(LOGS[at ^ other] - LOGS[point ^ other] for other in others) % (FIELD - 1)
        total ^= np.where(piece == 0, 0, POWERS[LOGS[piece] + log]).astype(np.uint8)
    return total
