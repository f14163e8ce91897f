"""Contamination: evaluation text that stands in the training text, found over ranks, and what it does to a score.

The training text is cut over ranks and far larger than the evaluation. So each rank holds the n-grams of the
*evaluation*, streams its own training text past them, and marks what it met. The marks are all-reduced, a byte for each
distinct n-gram: 2 (n-1)/n of that is what a rank sends, whatever the length of the training text.

    share(document) = words of it that lie in an n-gram met anywhere / its words

This follows Llama 3 (Dubey et al. 2024, section 5.1.4), which counts tokens in 8-grams, with a threshold on the share
for each data set. Brown et al. 2020 (GPT-3, appendix C) used the 13-gram for most sets. Short n-grams find idioms, long
ones miss what was edited; both ways a paraphrase, a translation or an answer without its question is missed.

`measured_gap` trains: half of some held-out text is put into the training text a few times, the other half never.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.runtime.group import member
from parallel_lab.systems.evaluation import byte_model

N = 8
SET_BYTES = byte_model.BLOCK_BYTES  # of each half of the evaluation
PIECE_BYTES = 128  # the halves are dealt out in such pieces, so that they are about equally hard


def words(document: str) -> list[str]:
    """Its words in lower case, without punctuation: how a copy is usually changed."""
    return re.findall(r"\w+", document.lower())


def ngrams(document: str, n: int = N) -> Iterator[str]:
    """Each run of `n` words, from the first to the last; none of a document that is shorter."""
    found = words(document)
    return (" ".join(found[start : start + n]) for start in range(len(found) - n + 1))


def overlap(
    evaluation: Sequence[str], training: Iterable[str], *, n: int = N, group: dist.ProcessGroup | None = None
) -> list[float]:
    """For each document of `evaluation` the share of its words in an n-gram that some rank's `training` has.

    `evaluation` is the same on all ranks, and `training` this rank's part; it is read once, document by document.
    A document of fewer than `n` words has no n-gram, so this cannot tell, and its share is NaN.
    """
    place = {gram: i for i, gram in enumerate(dict.fromkeys(g for each in evaluation for g in ngrams(each, n)))}
    met = torch.zeros(len(place), dtype=torch.uint8)
    for document in training:
        met[[place[gram] for gram in ngrams(document, n) if gram in place]] = 1
    if len(met):
        dist.all_reduce(met, dist.ReduceOp.MAX, group=member(group))
    return [_share(list(ngrams(each, n)), place, met, n) for each in evaluation]


def _share(grams: list[str], place: dict[str, int], met: Tensor, n: int) -> float:
    if not grams:
        return float("nan")
    covered = torch.zeros(len(grams) + n - 1, dtype=torch.bool)
    for start, gram in enumerate(grams):
        if met[place[gram]]:
            covered[start : start + n] = True
    return float(covered.double().mean())


class Gap(NamedTuple):
    """The loss of one model on both halves of an evaluation, in bits per byte."""

    seen: float  # stands in the training text
    unseen: float  # does not


def measured_gap(copies: int, *, seed: int = 0) -> Gap:
    """Trains a byte GPT on text that holds one half of the evaluation `copies` times, once through all of it.

    With 0 copies the halves differ only in how hard they are, which is what the other gaps are to be compared with.
    """
    whole = byte_model.shuffled_text(seed)
    pieces, fresh = whole[: 2 * SET_BYTES].view(-1, 2, PIECE_BYTES), whole[2 * SET_BYTES :]
    seen, unseen = pieces[:, 0].reshape(-1), pieces[:, 1].reshape(-1)
    data = torch.cat([fresh[: byte_model.BYTES - copies * SET_BYTES], seen.repeat(copies)])
    model = byte_model.train(data, seed=seed)
    return Gap(byte_model.bits_per_byte(model, seen), byte_model.bits_per_byte(model, unseen))
