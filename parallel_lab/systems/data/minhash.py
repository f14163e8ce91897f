"""MinHash and LSH: sets that resemble each other, found without comparing every pair.

The resemblance of two texts is the Jaccard index J of their sets of shingles, what both have as a share of what they
have together; a shingle is a run of `width` words. For a random order of all shingles, the first one of one set is also
the first one of the other with just this probability (Broder 1997, "On the resemblance and containment of documents").
Hash functions (factor * shingle + summand) mod prime stand for the random orders, and do nearly as well. So of
`count` hash functions the share that agrees in their minima estimates J, with a standard deviation of
sqrt(J (1 - J) / count).

LSH cuts the count = bands * rows minima into bands of some rows each. Two texts are candidates if some band agrees in
all its rows:

    one row agrees with probability J, a band with J^rows, no band with (1 - J^rows)^bands
    Pr[candidates] = 1 - (1 - J^rows)^bands

The curve is steep near (1/bands)^(1/rows), where J^rows = 1/bands and the probability is 1 - (1 - 1/bands)^bands, which
lies between 1 - exp(-1) = 0.63 and 0.75 for two bands and more. A candidate is no duplicate yet: see `duplicates`,
which compares the sets themselves.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parallel_lab.systems.data.exchange import key_of

PRIME = 2**31 - 1  # a product of two numbers below it fits into 64 bits
Shingles = NDArray[np.int64]


def shingles(text: str, width: int = 3) -> Shingles:
    """The hashes of all runs of `width` words of `text`, sorted, each once; a shorter text is one shingle."""
    words = re.findall(r"\w+", text.lower())
    runs = {" ".join(words[start : start + width]) for start in range(max(len(words) - width, 0) + 1)}
    return np.unique(np.fromiter((zlib.crc32(run.encode()) % PRIME for run in runs), np.int64, len(runs)))


def jaccard(one: Shingles, other: Shingles) -> float:
    """What two sets have in common, as a share of what they have together."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def permutations(count: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The factors and summands of `count` hash functions (factor * shingle + summand) mod PRIME; all need the same."""
    dice = np.random.default_rng(seed)
    return dice.integers(1, PRIME, count), dice.integers(0, PRIME, count)


def signature(items: Shingles, factors: NDArray[np.int64], summands: NDArray[np.int64]) -> NDArray[np.int64]:
    """The least value of each hash function over the set, int64 (hash functions,)."""
    return ((items[:, None] * factors + summands) % PRIME).min(0)


def estimate(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """The share of minima that agree: an unbiased estimate of the Jaccard index."""
    return float((one == other).mean())


def band_keys(signed: NDArray[np.int64], bands: int) -> list[int]:
    """A key for each band of a signature; the number of the band is part of it, so bands do not meet each other.

    Raises:
        ValueError: the signature cannot be cut into so many equal bands.
    """
    if len(signed) % bands:
        raise ValueError(f"{len(signed)} minima cannot be cut into {bands} equal bands")
    return [
        key_of(bytes([band % 256, band // 256]) + rows.tobytes()) for band, rows in enumerate(np.split(signed, bands))
    ]


def probability(similarity: float, bands: int, rows: int) -> float:
    """1 - (1 - J^rows)^bands: two texts of this resemblance J are candidates."""
    return 1 - (1 - similarity**rows) ** bands


def threshold(bands: int, rows: int) -> float:
    """(1/bands)^(1/rows), about where the curve is steepest."""
    return (1 / bands) ** (1 / rows)


def signatures(sets: Sequence[Shingles], count: int, seed: int = 0) -> NDArray[np.int64]:
    """The signatures of all `sets`, int64 (sets, count)."""
    factors, summands = permutations(count, seed)
    return np.stack([signature(items, factors, summands) for items in sets]) if sets else np.empty((0, count), np.int64)
