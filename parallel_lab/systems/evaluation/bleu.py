r"""Corpus BLEU over ranks, from ten counts (Papineni et al. 2002; the variant of Post 2018, "A call for clarity").

    BLEU = 100 min(1, exp(1 - expected / written)) exp(1/4 sum over orders 1 to 4 of ln precision)

`precision` is the share of the hypotheses' n-grams of an order that are in a reference, each counted at most as often
as there; `written` is the length of the hypotheses, `expected` that of the references, the closest for each sentence.
Both are sums over the *corpus*, so BLEU is no mean of sentences, and none of ranks. The counts add up: a rank sends ten
int64, 160 (n-1)/n bytes.

The tokenizer is WMT's `13a`, the smoothing `exp`: the first order without a match counts as 1/2 matches, the next as
1/4, and so on. Other tokenizers give other numbers, so a BLEU is reported with both. `13a` does not cut Chinese: a
sentence is one token.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

ORDERS = 4
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_RULES = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),  # punctuation but for . , - and the apostrophe
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),  # a period or comma that is not within a number
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def tokenize(line: str) -> list[str]:
    """The words and marks of a line, as mteval-v13a cuts them."""
    line = line.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        line = line.replace(entity, character)
    line = f" {line} "
    for rule, replacement in _RULES:
        line = rule.sub(replacement, line)
    return line.split()


def statistics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """One row (10) of int64 counts for each sentence; their sum is what ranks merge.

    A row holds the length of the hypothesis, that of the closest reference, then matches and n-grams of orders 1 to 4.
    `references[i]` are the references of hypothesis i, one or more.

    Raises:
        ValueError: there are not as many lists of references as hypotheses, or one is empty.
    """
    check_references(hypotheses, references)
    rows = [
        _counts(tokenize(h), [tokenize(r) for r in several]) for h, several in zip(hypotheses, references, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 2 + 2 * ORDERS)


def score(counts: Tensor) -> float:
    """BLEU from 0 to 100, of the sum of rows; 0 where nothing matches."""
    length, reference_length, *rest = counts.tolist()
    matches, ngrams = rest[:ORDERS], rest[ORDERS:]
    if not any(matches) or not all(ngrams):
        return 0.0
    logs, halvings = 0.0, 0
    for match, count in zip(matches, ngrams, strict=True):
        halvings += not match
        logs += math.log(100 * (match or 0.5**halvings) / count)
    return min(1.0, math.exp(1 - reference_length / length)) * math.exp(logs / ORDERS)


def check_references(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuses what is no list of references for each hypothesis.

    Raises:
        ValueError: the numbers differ, or a hypothesis has no reference, or a string stands for a list.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses and {len(references)} lists of references: expected one each")
    if any(isinstance(several, str) or not several for several in references):
        raise ValueError("references[i] is the list of the references of hypothesis i, one or more: [['one'], ['two']]")


def ngrams_of(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram of `order` tokens occurs."""
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def _counts(hypothesis: list[str], references: list[list[str]]) -> list[int]:
    matches, ngrams = [], []
    for order in range(1, ORDERS + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= ngrams_of(reference, order)
        mine = ngrams_of(hypothesis, order)
        matches.append((mine & most).total())
        ngrams.append(mine.total())
    own = len(hypothesis)
    closest = min((abs(len(r) - own), len(r)) for r in references)[1]
    return [own, closest, *matches, *ngrams]
