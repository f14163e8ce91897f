"""A small language model that counts: interpolated n-grams of bytes, for experiments that must be quick and exact.

The probability of a byte after a context mixes what was counted after this context with the probability after the
context without its first byte (Witten and Bell 1991; the form of Chen and Goodman 1996, "An empirical study of
smoothing techniques for language modeling"):

    Pr[byte] = (count(context, byte) + types(context) * Pr[byte, shorter]) / (count(context) + types(context))

`types` is how many different bytes followed the context, `shorter` the context without its first byte; what the empty
context is mixed with is 1/256. There is no seed in it: a difference of
two losses is one of the data. It remembers runs of `order` bytes and nothing longer, so what it shows is a lower end of
what a network would remember.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint64]


class NGram:
    """Counts of all runs of up to `order` bytes in `texts`, and the probabilities that they give.

    Args:
        texts: to learn from; a run does not reach from one text into the next.
        order: the longest run, 8 bytes at most.
    """

    def __init__(self, texts: Iterable[bytes], order: int = 6) -> None:
        self.order = order
        arrays = [np.frombuffer(text, np.uint8) for text in texts]
        self.counts = []
        for length in range(1, order + 1):
            codes = [_runs(array, length) for array in arrays if len(array) >= length]
            runs, count = np.unique(np.concatenate(codes) if codes else np.empty(0, np.uint64), return_counts=True)
            contexts, start = np.unique(runs >> np.uint64(8), return_index=True)
            totals = np.add.reduceat(count, start) if len(start) else count
            types = np.diff(np.append(start, len(runs)))
            self.counts.append((runs, count, contexts, totals, types))

    def probabilities(self, text: bytes) -> NDArray[np.float64]:
        """The probability of each byte of `text` after those before it."""
        array = np.frombuffer(text, np.uint8)
        chance = np.full(len(array), 1 / 256)
        for length, (runs, count, contexts, totals, types) in enumerate(self.counts, 1):
            if len(array) < length:
                break
            codes, start = _runs(array, length), length - 1
            total, kinds = _looked_up(contexts, totals, types, keys=codes >> np.uint64(8))
            (seen,) = _looked_up(runs, count, keys=codes)
            known = total > 0
            mixed = (seen + kinds * chance[start:]) / np.where(known, total + kinds, 1)
            chance[start:] = np.where(known, mixed, chance[start:])
        return chance

    def bits_per_byte(self, texts: Iterable[bytes]) -> float:
        """The mean over all bytes of `texts` of -log2 of their probability."""
        bits = [-np.log2(self.probabilities(text)) for text in texts]
        return float(np.concatenate(bits).mean())


def _runs(array: NDArray[np.uint8], length: int) -> Codes:
    """Each run of `length` bytes as one number, its last byte lowest."""
    codes = np.zeros(len(array) - length + 1, np.uint64)
    for place in range(length):
        codes = codes << np.uint64(8) | array[place : place + len(codes)].astype(np.uint64)
    return codes


def _looked_up(table: Codes, *values: NDArray, keys: Codes) -> list[NDArray]:
    """For each key its value in each of `values`, 0 where the sorted `table` does not have it."""
    if not len(table):
        return [np.zeros(len(keys), np.int64) for _ in values]
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return [np.where(table[place] == keys, value[place], 0) for value in values]
