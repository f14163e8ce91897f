"""Byte-level byte-pair encoding, trained over ranks (Sennrich et al. 2016; on bytes as in GPT-2, Radford et al. 2019).

Begin with the 256 bytes as tokens. Again and again take the pair of neighbors that is most frequent in the whole text,
and make it a token of its own. Text is cut into words first, and no token reaches over the end of a word.

Over ranks: the text of a rank stays with it, as a count of each of its different words. What is global is how often
each pair occurs. All ranks gather these counts once. After a merge only a few pairs change their counts; a rank finds
the words that have the pair, and all ranks gather the changes (three numbers each). So every rank knows all counts and
takes the same next pair: the highest count, and of equal ones the pair whose bytes come first. The merges are those of
one process at any number of ranks, because sums of integers do not depend on their order.

The other way is to gather the words once and to train on one rank, with one exchange instead of one a merge. It is
quicker while the different words of all ranks fit into one memory; a test compares the bytes.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.systems.data.exchange import gathered, table

Pair = tuple[int, int]
Merges = list[Pair]
# A word takes the blank before it along; letters, digits, signs and blanks do not mix. Every byte is in some word.
WORDS = re.compile(rb" ?[A-Za-z\x80-\xff]+| ?[0-9]+| ?[^\sA-Za-z0-9\x80-\xff]+|\s+(?!\S)|\s+")


def words(text: bytes) -> list[bytes]:
    """`text` cut into words; joined, they are the text."""
    return WORDS.findall(text)


def merged(tokens: tuple[int, ...], pair: Pair, new: int) -> tuple[int, ...]:
    """`tokens` with `new` in place of each `pair`, from left to right."""
    out, place = [], 0
    while place < len(tokens):
        both = tokens[place : place + 2] == pair
        out.append(new if both else tokens[place])
        place += 2 if both else 1
    return tuple(out)


class Counts:
    """The words of this rank as tokens with their counts, and in which of them each pair stands."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        found = Counter(word for text in texts for word in words(text))
        self.words = [tuple(word) for word in found]
        self.often = list(found.values())
        self.where: dict[Pair, set[int]] = defaultdict(set)

    def all_pairs(self) -> Counter[Pair]:
        """How often each pair occurs in this rank's text."""
        counts: Counter[Pair] = Counter()
        for number, tokens in enumerate(self.words):
            self._count(counts, number, self.often[number])
            for pair in pairwise(tokens):
                self.where[pair].add(number)
        return counts

    def merge(self, pair: Pair, new: int) -> Counter[Pair]:
        """Makes `pair` the token `new` in every word that has it; returns what that changes in the counts."""
        changes: Counter[Pair] = Counter()
        for number in self.where.pop(pair, ()):
            self._count(changes, number, -self.often[number])
            self.words[number] = merged(self.words[number], pair, new)
            self._count(changes, number, self.often[number])
            for other in pairwise(self.words[number]):
                if new in other:
                    self.where[other].add(number)
        return Counter({changed: by for changed, by in changes.items() if by})

    def _count(self, counts: Counter[Pair], number: int, by: int) -> None:
        for pair in pairwise(self.words[number]):
            counts[pair] += by


def train(texts: Iterable[bytes], merges: int, *, group: dist.ProcessGroup | None = None) -> Merges:
    """The first `merges` merges over the texts of all ranks; fewer where no pair is left.

    Args:
        texts: this rank's own.
        merges: how many; the vocabulary has 256 tokens more.
        group: of ranks; without an initialized process group, this process alone.
    """
    own, found = Counts(texts), Merges()
    totals: Counter[Pair] = Counter()
    vocabulary = [bytes([byte]) for byte in range(256)]
    changed = _summed(own.all_pairs(), group)
    queue: list = []
    while len(found) < merges:
        for pair, by in changed.items():
            totals[pair] += by
            heappush(queue, _entry(pair, totals, vocabulary))
        while queue and -queue[0][0] != totals[queue[0][-1]]:
            heappop(queue)  # the pair has another count by now, and another entry
        if not queue or queue[0][0] == 0:
            break
        pair = queue[0][-1]
        found.append(pair)
        vocabulary.append(vocabulary[pair[0]] + vocabulary[pair[1]])
        changed = _summed(own.merge(pair, len(vocabulary) - 1), group)
    return found


def _entry(pair: Pair, totals: Counter[Pair], vocabulary: list[bytes]) -> tuple:
    """What the queue sorts by: the highest count, then the pair whose bytes come first, then the older tokens."""
    return -totals[pair], vocabulary[pair[0]], vocabulary[pair[1]], pair


def _summed(counts: Counter[Pair], group: dist.ProcessGroup | None) -> Counter[Pair]:
    """The sum over ranks, on every rank."""
    if not dist.is_initialized():
        return counts
    rows: Tensor = table([(*pair, by) for pair, by in counts.items()], 3)
    total: Counter[Pair] = Counter()
    for one, other, by in torch.cat(gathered(rows, group=group)).tolist():
        total[one, other] += by
    return total


class Tokenizer:
    """Encodes by merges in the order in which they were learned, and decodes."""

    def __init__(self, merges: Merges) -> None:
        self.place = {pair: 256 + number for number, pair in enumerate(merges)}
        self.vocabulary = [bytes([byte]) for byte in range(256)]
        for one, other in merges:
            self.vocabulary.append(self.vocabulary[one] + self.vocabulary[other])
        self._known: dict[bytes, tuple[int, ...]] = {}

    def encode(self, text: bytes) -> list[int]:
        """The tokens of `text`, which may be any bytes."""
        return [token for word in words(text) for token in self._encoded(word)]

    def _encoded(self, word: bytes) -> tuple[int, ...]:
        if word not in self._known:
            tokens = tuple(word)
            while pairs := [pair for pair in pairwise(tokens) if pair in self.place]:
                first = min(pairs, key=self.place.__getitem__)
                tokens = merged(tokens, first, self.place[first])
            self._known[word] = tokens
        return self._known[word]

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes of `tokens`; a single token may be half of a character."""
        return b"".join(self.vocabulary[token] for token in tokens)
