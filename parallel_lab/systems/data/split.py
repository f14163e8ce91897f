"""Splitting a collection into training and held-out parts, and measuring what leaks from one into the other.

By document, before anything is cut or copied: which part a document is in follows from the hash of its text. So every
rank decides it alone, equal documents are on the same side, and a document stays on its side when the collection grows.

Three ways to leak, each of which makes the held-out loss look better than it is:

- chunks are split instead of documents: neighbors of a held-out chunk, with stride below length even its own text, are
  trained on;
- copies are made first (augmentation, repeats of one page), then split;
- near duplicates stand on both sides (`duplicates.crossing`).
"""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parallel_lab.systems.data.exchange import key_of
from parallel_lab.systems.data.ngram import NGram

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no byte is multiplied away


class Split(NamedTuple):
    """Texts to train on, and texts held out."""

    train: list[str]
    held_out: list[str]


def is_held_out(text: str, portion: float = 0.1, seed: int = 0) -> bool:
    """Whether a document is held out; it depends on its text and the seed alone."""
    return key_of(f"{seed} {text}") < portion * 2**63


def by_document(documents: Iterable[str], portion: float = 0.1, seed: int = 0) -> Split:
    """Each document on one side, whole; about `portion` of them are held out."""
    split = Split([], [])
    for text in documents:
        split[is_held_out(text, portion, seed)].append(text)
    return split


def at_random(texts: Sequence[str], portion: float = 0.1, seed: int = 0) -> Split:
    """The given texts dealt out at random: right for documents without twins, a leak for chunks and copies."""
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    first = round(len(texts) * portion)
    return Split([texts[place] for place in sorted(order[first:])], [texts[place] for place in sorted(order[:first])])


def chunks(text: str, length: int, stride: int | None = None) -> list[str]:
    """Pieces of `length` characters, a new one each `stride` (default: `length`); the last may be shorter."""
    step = stride or length
    return [text[start : start + length] for start in range(0, max(len(text) - length + step, 1), step)]


def overlap(split: Split, run: int = 50) -> float:
    """The share of the held-out runs of `run` bytes that stand in the training texts as well."""
    held = _hashes(split.held_out, run)
    return float(np.isin(held, _hashes(split.train, run)).mean()) if len(held) else 0.0


def _hashes(texts: Iterable[str], run: int) -> NDArray[np.uint64]:
    """A polynomial hash of 64 bits, modulo 2^64, for each run of `run` bytes; equal runs have equal hashes.

    All texts stand in one row, and runs that reach from one into the next are left out at the end. The hash of a run of
    twice a length is that of its first half, times the base to the power of this length, and that of its last half: so
    runs grow by doubling.
    """
    raw = [text.encode() for text in texts]
    sizes = [len(text) for text in raw]
    row = np.frombuffer(b"".join(raw), np.uint8).astype(np.uint64) + np.uint64(1)
    ends = np.repeat(np.cumsum(sizes), sizes)  # for each byte, where its text ends
    codes, length, power = np.zeros(len(row) + 1, np.uint64), 0, 1
    for bit in f"{run:b}":
        codes = codes[: max(len(codes) - length, 0)] * np.uint64(power) + codes[length:]
        length, power = 2 * length, power**2 % 2**64
        if bit == "1":
            codes = codes[:-1] * _BASE + row[length:]
            length, power = length + 1, power * int(_BASE) % 2**64
    return codes[np.arange(len(codes)) + run <= ends[: len(codes)]]


class Leak(NamedTuple):
    """What a split lets through, and how good it makes a model look."""

    overlap: float
    bits_per_byte: float


def leak(split: Split, order: int = 6, run: int = 50) -> Leak:
    """The overlap of a split, and the held-out loss of an n-gram model that was trained on its training texts."""
    model = NGram([text.encode() for text in split.train], order)
    return Leak(overlap(split, run), model.bits_per_byte([text.encode() for text in split.held_out]))
