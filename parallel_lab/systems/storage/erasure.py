"""An erasure code: data in k pieces and m more, any k of which give the data back.

Reed, Solomon, "Polynomial Codes over Certain Finite Fields", 1960. Byte j of the k data pieces are the values of a
polynomial of degree below k at the points 0 .. k - 1. The m further pieces are its values at k .. k + m - 1. Any k
values determine the polynomial, so any k pieces give back the others, by Lagrange's formula. Numbers are those of the
field with 256 elements, so that each is a byte: there a sum is an exclusive or.

This is the code itself, for reading and for small data. Storage systems run it with tables in the processor's vector
registers.
"""

from collections.abc import Mapping

import numpy as np

FIELD = 256
POLYNOMIAL = 0x11D  # x^8 + x^4 + x^3 + x^2 + 1: modulo it the powers of 2 are all elements but 0


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


def encode(data: bytes, k: int, m: int) -> list[bytes]:
    """The k + m pieces; the first k hold the data itself, filled up with zeros.

    Raises:
        ValueError: there is no piece of data, or there are more pieces than the field has points.
    """
    if k < 1 or m < 0 or k + m > FIELD:
        raise ValueError(f"RS({k}, {m}): expected k of 1 or more, and {FIELD} pieces at most")
    length = -(-len(data) // k)
    pieces = {i: np.frombuffer(data[i * length : (i + 1) * length].ljust(length, b"\0"), np.uint8) for i in range(k)}
    return [_value(pieces, at).tobytes() for at in range(k + m)]


def decode(pieces: Mapping[int, bytes], k: int, size: int) -> bytes:
    """The data from any k of its pieces, by number.

    Args:
        pieces: what is left.
        k: how many pieces of data there were.
        size: the bytes of the data.

    Raises:
        ValueError: fewer than k are left.
    """
    if len(pieces) < k:
        raise ValueError(f"{len(pieces)} pieces are left, and {k} are needed")
    known = {number: np.frombuffer(pieces[number], np.uint8) for number in sorted(pieces)[:k]}
    return b"".join(_value(known, at).tobytes() for at in range(k))[:size]


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
