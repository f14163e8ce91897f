"""Where a wrong tensor is right, and what stands in its other places: an input, a partial sum, a factor, a chunk.

The kernel has the inputs of all ranks, so a block that is rank 1's input, or the sum without rank 2, can be called so.
"""

from collections.abc import Sequence
from itertools import groupby, product

import torch
from torch import Tensor

CLOSE = 1e-10  # relative to the largest expected value
MOST_BLOCKS = 6  # that a message names
Family = tuple[str, Sequence[Tensor]]  # a name with braces for a rank, and the tensors of the ranks


def located(got: Tensor, expected: Tensor, inputs: Sequence[Family], alone: Sequence[Tensor], rank: int) -> str:
    """What the elements of `got` on `rank` are, block by block; empty if nothing is known of any.

    Args:
        got: what the rank returned.
        expected: what it should be, of the same shape.
        inputs: what the ranks were given.
        alone: what would be right if the data of rank 0, of rank 1, ... alone counted.
        rank: which one returned it.
    """
    blocks = _Blocks(got, expected)
    blocks.take(expected, "right")
    for name, tensors in inputs:
        for value, words in _sums(name, tensors, rank):
            blocks.take(value, words)
    for other, tensor in enumerate(alone):
        blocks.take(tensor, f"what {'its own' if other == rank else f'rank {other}'}{_s(other, rank)} data alone give")
    blocks.take(torch.zeros_like(expected), "zero")
    ranks = max([len(alone), *(len(tensors) for _, tensors in inputs)], default=1)
    blocks.take_chunks(ranks, [(expected, "what belongs in")])
    for name, tensors in inputs:
        blocks.take_chunks(ranks, [(value, f"{words}, in") for value, words in _sums(name, tensors, rank)])
    return blocks.text()


def _s(other: int, rank: int) -> str:
    return "" if other == rank else "'s"


def _sums(name: str, tensors: Sequence[Tensor], rank: int) -> list[tuple[Tensor, str]]:
    """The input of each rank, sums of some, and sums in which a rank counts twice; the simplest first."""
    most = 2 if len(tensors) <= 4 else 1
    chosen = sorted(product(range(most + 1), repeat=len(tensors)), key=sum) if len(tensors) <= 6 else []
    found = []
    for counts in filter(any, chosen):
        of = [other for other, count in enumerate(counts) if count]
        if sum(counts) == 1:
            words = name.format("its own" if of[0] == rank else f"rank {of[0]}'s")
        else:
            words = f"the sum of {_ranks(of)}"
            words += f", {_ranks(twice)} twice" if (twice := [r for r in of if counts[r] == 2]) else ""
            missing = [other for other, count in enumerate(counts) if not count]
            words += f" without {_ranks(missing)}" if missing else ""
        found.append(
            (torch.stack([count * t.double() for count, t in zip(counts, tensors, strict=True)]).sum(0), words)
        )
    return found


def _ranks(ranks: list[int]) -> str:
    names = list(map(str, ranks))
    return f"rank {names[0]}" if len(names) == 1 else f"ranks {', '.join(names[:-1])} and {names[-1]}"


class _Blocks:
    """Words for each element of a tensor, given out once."""

    def __init__(self, got: Tensor, expected: Tensor) -> None:
        self.got, self.expected = got.double().flatten(), expected.double().flatten()
        self.close = CLOSE * (1 + self.expected.abs().max().item())
        self.words = [""] * len(self.got)

    def take(self, value: Tensor, words: str) -> None:
        """Elements that are those of `value`, and have no words yet, get these."""
        if value.numel() == len(self.got):
            for place in self._equal(self.got, value).nonzero().flatten().tolist():
                self.words[place] = self.words[place] or words

    def take_chunks(self, ranks: int, values: list[tuple[Tensor, str]]) -> None:
        """A chunk without words gets those of a value in another chunk, or those of a constant factor."""
        chunks = [chunk for chunk in torch.arange(len(self.got)).tensor_split(ranks) if len(chunk) > 1]
        for chunk in chunks:
            if any(self.words[place] for place in chunk.tolist()):
                continue
            ratio = self.got[chunk] / self.expected[chunk]
            if bool((ratio - ratio[0]).abs().le(1e-9 * ratio[0].abs()).all()):
                self._say(chunk, f"{ratio[0].item():.4g} times what they should be")
            for value, words in values:
                for other in chunks:
                    same_size = len(other) == len(chunk) and value.numel() == len(self.got)
                    if same_size and bool(self._equal(self.got[chunk], value.flatten()[other]).all()):
                        self._say(chunk, f"{words} elements {_span(int(other[0]), int(other[-1]))}")

    def _equal(self, got: Tensor, value: Tensor) -> Tensor:
        return (got - value.double().flatten()).abs() <= self.close

    def _say(self, chunk: Tensor, words: str) -> None:
        for place in chunk.tolist():
            self.words[place] = self.words[place] or words

    def text(self) -> str:
        """`elements 0 to 5,999 are right; elements 6,000 to 11,999 are its own input`."""
        runs, start = [], 0
        for words, group in groupby(self.words):
            count = len(list(group))
            runs.append((words, start, start + count - 1))
            start += count
        known = {words for words, *_ in runs} - {"", "right"}
        right = sum(word == "right" for word in self.words)
        if len(runs) > MOST_BLOCKS or not (known or right):
            return f"{right:,} of {start:,} elements are right" if right else ""
        if len(runs) == 1:
            return f"{'every element' if start > 1 else 'it'} is {runs[0][0]}"
        of = [
            f"{_span(first, last)} {'is' if first == last else 'are'} {words or 'wrong'}" for words, first, last in runs
        ]
        return "elements " + "; ".join(of)


def _span(first: int, last: int) -> str:
    return f"{first:,} to {last:,}" if last > first else f"{first:,}"
