"""Filters of documents: in which language one is, and rules that tell prose from the rest of the web.

Language: the rank-order statistics of Cavnar and Trenkle 1994, "N-gram-based text categorization". A profile is the
list of the most frequent character n-grams, of one to four here, the most frequent first. The distance of a text from a
language sums for each n-gram of the text's profile how many places it stands elsewhere in the language's.

Quality: rules of MassiveText (Rae et al. 2021, "Scaling language models: Gopher", appendix A) and of C4 (Raffel et al.
2020, "Exploring the limits of transfer learning", section 2.2). A rule sees one document, so ranks filter their own and
only the counts are added up. The rules are written for English prose on the web. Code, tables, and languages without
blanks between words fail them; look at what each rule drops before you trust it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch.distributed as dist

from parallel_lab.systems.data.samples import LEARN

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
Rule = Callable[[str], bool]


def profile(text: str, size: int = 300, longest: int = 4) -> dict[str, int]:
    """The place of each of the `size` most frequent character n-grams of `text`; ties go by the alphabet."""
    words = [f"_{word}_" for word in re.findall(r"[^\W\d_]+", text.lower())]
    counts = Counter(
        word[start : start + length]
        for word in words
        for length in range(1, longest + 1)
        for start in range(len(word) - length + 1)
    )
    counts.pop("_", None)  # every word has two of them
    ordered = sorted(counts, key=lambda gram: (-counts[gram], gram))
    return {gram: place for place, gram in enumerate(ordered[:size])}


def distance(text: Mapping[str, int], language: Mapping[str, int]) -> int:
    """How far the places of one profile are from those of another; an n-gram that is missing counts all places."""
    return sum(abs(place - language[gram]) if gram in language else len(language) for gram, place in text.items())


class Languages:
    """Says in which language a text is, after `samples`, a text for each language."""

    def __init__(self, samples: Mapping[str, str] = LEARN) -> None:
        self.profiles = {name: profile(text) for name, text in samples.items()}

    def __call__(self, text: str) -> str:
        """The language whose profile is nearest to that of `text`."""
        own = profile(text)
        return min(self.profiles, key=lambda name: distance(own, self.profiles[name]) / len(self.profiles[name]))


def _share(items: Sequence, test: Callable) -> float:
    return sum(map(test, items)) / max(len(items), 1)


def _repeats(items: Sequence[str]) -> float:
    return 1 - len(set(items)) / max(len(items), 1)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _mean_length(text: str) -> float:
    words = text.split()
    return sum(map(len, words)) / max(len(words), 1)


GOPHER: dict[str, Rule] = {
    "50 to 100,000 words": lambda text: 50 <= len(text.split()) <= 100_000,
    "mean word of 3 to 10 characters": lambda text: 3 <= _mean_length(text) <= 10,
    "at most one # or ... in 10 words": lambda text: (
        max(text.count("#"), text.count("...") + text.count("…")) <= 0.1 * len(text.split())
    ),
    "at most 90 % of lines are bullets": lambda text: _share(_lines(text), lambda line: line[0] in "•*-") <= 0.9,
    "at most 30 % of lines end in ...": lambda text: (
        _share(_lines(text), lambda line: line.endswith(("...", "…"))) <= 0.3
    ),
    "80 % of words have a letter": lambda text: _share(text.split(), lambda word: any(map(str.isalpha, word))) >= 0.8,
    "two stop words": lambda text: len(STOP_WORDS & set(re.findall(r"\w+", text.lower()))) >= 2,
    "at most 30 % repeated lines": lambda text: _repeats(_lines(text)) <= 0.3,
}
C4: dict[str, Rule] = {
    "three sentences": lambda text: len(re.findall(r"[.!?](?:\s|$)", text)) >= 3,
    "no {": lambda text: "{" not in text,
    "no lorem ipsum": lambda text: "lorem ipsum" not in text.lower(),
    "no javascript": lambda text: "javascript" not in text.lower(),
}


class Sieved(NamedTuple):
    """What came through, and why the rest did not."""

    kept: list[str]
    first: Counter[str]  # how many documents each rule was the first to drop: these add up to what is gone
    alone: Counter[str]  # how many documents only this rule drops: what is lost by having it


def sieve(documents: Iterable[str], rules: Mapping[str, Rule] = GOPHER) -> Sieved:
    """The documents that keep all `rules`, and what each rule drops."""
    kept, first, alone = [], Counter(), Counter()
    for text in documents:
        broken = [name for name, keeps in rules.items() if not keeps(text)]
        if not broken:
            kept.append(text)
            continue
        first[broken[0]] += 1
        if len(broken) == 1:
            alone[broken[0]] += 1
    return Sieved(kept, first, alone)


def sieve_over_ranks(
    documents: Iterable[str], rules: Mapping[str, Rule] = GOPHER, *, group: dist.ProcessGroup | None = None
) -> Sieved:
    """As `sieve`: a rank keeps its own documents, and the counts are those of all ranks."""
    own = sieve(documents, rules)
    each: list = [None] * dist.get_world_size(group)
    dist.all_gather_object(each, own[1:], group=group)
    first, alone = (sum(counts, Counter()) for counts in zip(*each, strict=True))
    return Sieved(own.kept, first, alone)
