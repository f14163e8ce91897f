"""chrF over ranks, from 18 counts (Popovic 2015): the F2 measure of character n-grams of orders 1 to 6.

    chrF = 100 (1 + weight) precision recall / (weight precision + recall),     weight = 2^2

Precision and recall are means over the orders of those of the corpus; an order that either side lacks is left out.
Spaces are no characters here. No tokenizer is needed, so it works for Chinese as well. Of each order three counts add
up over ranks: n-grams of the hypotheses, of the references, matches; 288 (n-1)/n bytes a rank.

Names and defaults are sacrebleu's: `chrF2`, character order 6, word order 0, no smoothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from parallel_lab.systems.evaluation.bleu import check_references, ngrams_of

ORDERS = 6
BETA = 2


def statistics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """One row (18) of int64 counts for each sentence; their sum is what ranks merge.

    Of several references that with the highest chrF of the sentence counts.

    Raises:
        ValueError: as `bleu.statistics`.
    """
    check_references(hypotheses, references)
    rows = [_best(h, several) for h, several in zip(hypotheses, references, strict=True)]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 3 * ORDERS)


def score(counts: Tensor) -> float:
    """chrF from 0 to 100, of the sum of rows; 0 where nothing matches."""
    return _f(counts.tolist())


def _f(counts: list[int]) -> float:
    orders = [counts[i : i + 3] for i in range(0, len(counts), 3)]
    used = [(match / mine, match / theirs) for mine, theirs, match in orders if mine and theirs]
    if not any(precision for precision, _ in used):
        return 0.0
    precision, recall = (sum(each) / len(used) for each in zip(*used, strict=True))
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _best(hypothesis: str, references: Sequence[str]) -> list[int]:
    return max((_counts("".join(hypothesis.split()), "".join(each.split())) for each in references), key=_f)


def _counts(hypothesis: str, reference: str) -> list[int]:
    row = []
    for order in range(1, ORDERS + 1):
        mine, theirs = ngrams_of(hypothesis, order), ngrams_of(reference, order)
        row += [mine.total() if theirs else 0, theirs.total(), (mine & theirs).total()]
    return row
