"""A secret in shares, of which `threshold` give it back and fewer say nothing (Shamir 1979).

The secret is the value at 0 of a random polynomial of degree threshold - 1 over the integers modulo a prime; share i
is its value at i. Through `threshold` points goes one such polynomial, which gives the secret; through one point less
and any value at 0 goes one as well, so one share less fits every secret.
"""

import secrets
from collections.abc import Mapping

PRIME = 2**521 - 1  # larger than any secret of 64 bytes
SECRET_BYTES = 32


def split(secret: bytes, shares: int, threshold: int) -> dict[int, int]:
    """Shares 1 to `shares` of a secret of 32 bytes, of which `threshold` are needed.

    Raises:
        ValueError: a secret of another length, or a threshold outside 1 to `shares`.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= shares:
        raise ValueError(
            f"{len(secret)} bytes, {threshold} of {shares} shares: expected 32 bytes and 1 <= threshold <= shares"
        )
    polynomial = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {x: sum(c * pow(x, k, PRIME) for k, c in enumerate(polynomial)) % PRIME for x in range(1, shares + 1)}


def join(shares: Mapping[int, int]) -> bytes:
    """The secret of `threshold` shares or more, by Lagrange's formula at 0.

    Raises:
        ValueError: the shares are too few, or not of one secret: what comes out is no 32 bytes (which is likely, and
            not certain).
    """
    total = 0
    for x, y in shares.items():
        above, below = 1, 1
        for other in shares:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        total = (total + y * above * pow(below, -1, PRIME)) % PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise ValueError(f"{len(shares)} shares give no secret: too few of them, or not of one secret")
    return total.to_bytes(SECRET_BYTES, "big")
