"""ROUGE over ranks (Lin 2004): overlap of a summary with its reference, a mean over samples.

| kind       | counts as a match                                                                          |
|------------|--------------------------------------------------------------------------------------------|
| `rouge1`   | a word that both have; `rouge2` a pair of words                                            |
| `rougeL`   | a word of the longest common subsequence of the two texts                                  |
| `rougeLsum`| for each sentence (line) of the reference, the union of those with each line of the summary |

    precision = matches / words of the summary,  recall = matches / words of the reference,
    F1 = 2 precision recall / (precision + recall)

Each sample has its own F1, and the score is their mean. A mean over samples adds up by sums and a count: `statistics`
has rows of float64, and ranks merge (sum precision, sum recall, sum F1, samples), 32 bytes. The order of these
additions is not the same on another number of ranks, so the last digits may differ. Lower case; words are runs of a-z
and 0-9; no stemming, as in rouge_score by default.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from parallel_lab.systems.evaluation.bleu import ngrams_of

_WORD = re.compile(r"[a-z0-9]+")


class Rouge(NamedTuple):
    """Means over samples, from 0 to 1."""

    precision: float
    recall: float
    f: float


def statistics(summaries: Sequence[str], references: Sequence[str], kind: str = "rougeL") -> Tensor:
    """One row (precision, recall, F1, 1) of float64 for each sample; their sum is what ranks merge.

    Raises:
        ValueError: the kind is unknown, or there are not as many summaries as references.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    if len(summaries) != len(references):
        raise ValueError(f"{len(summaries)} summaries and {len(references)} references: expected one each")
    rows = [(*_shares(*KINDS[kind](mine, right)), 1) for mine, right in zip(summaries, references, strict=True)]
    return torch.tensor(rows, dtype=torch.float64).view(-1, 4)


def score(sums: Tensor) -> Rouge:
    """The means, of the sum of rows.

    Raises:
        ValueError: there are no samples.
    """
    *totals, samples = sums.tolist()
    if not samples:
        raise ValueError("no rank has a sample: there is nothing to score; check the shards before you evaluate")
    return Rouge(*(total / samples for total in totals))


def _shares(matches: int, mine: int, theirs: int) -> Rouge:
    precision, recall = matches / max(mine, 1), matches / max(theirs, 1)
    return Rouge(precision, recall, 2 * precision * recall / (precision + recall) if matches else 0.0)


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return _WORD.findall(text.lower())


def _ngrams(order: int, summary: str, reference: str) -> tuple[int, int, int]:
    mine, theirs = (ngrams_of(words(text), order) for text in (summary, reference))
    return (mine & theirs).total(), mine.total(), theirs.total()


def _subsequence(summary: str, reference: str) -> tuple[int, int, int]:
    mine, theirs = words(summary), words(reference)
    return int(common(theirs, mine)[-1, -1]), len(mine), len(theirs)


def _summary(summary: str, reference: str) -> tuple[int, int, int]:
    """Matches of the union of subsequences; a word matches at most as often as each side has it (ROUGE-1.5.5)."""
    mine, theirs = ([words(line) for line in text.split("\n")] for text in (summary, reference))
    left = Counter(word for line in mine for word in line) & Counter(word for line in theirs for word in line)
    matches = 0
    for line in theirs:
        for place in sorted(set().union(*(_places(line, other) for other in mine))):
            matches += left[line[place]] > 0
            left[line[place]] -= 1
    return matches, sum(map(len, mine)), sum(map(len, theirs))


def common(reference: Sequence[str], other: Sequence[str]) -> np.ndarray:
    """table[i, j]: the length of the longest common subsequence of the first i and the first j words."""
    table = np.zeros((len(reference) + 1, len(other) + 1), int)
    for i, one in enumerate(reference):
        for j, two in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if one == two else max(table[i, j + 1], table[i + 1, j])
    return table


def _places(reference: Sequence[str], other: Sequence[str]) -> list[int]:
    """The places in `reference` of one longest common subsequence; of several that which rouge_score takes."""
    table, found = common(reference, other), []
    i, j = len(reference), len(other)
    while i and j:
        if reference[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif table[i, j - 1] > table[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return found


KINDS = {
    "rouge1": lambda mine, right: _ngrams(1, mine, right),
    "rouge2": lambda mine, right: _ngrams(2, mine, right),
    "rougeL": _subsequence,
    "rougeLsum": _summary,
}
