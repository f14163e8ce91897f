"""Atoms: what a card claims, cut so small that one can say of each whether it was known.

The question with its 30-second answer (`E5/definition`) and the follow-ups (`E5/follow-up-1`, ...) are cut from the
card itself. Mechanism, formula, number and half-truth stand in `atoms/A.yaml` to `atoms/F.yaml`; they claim what the
card claims and nothing else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.course.questions import Card, ask, index
from parallel_lab.course.typed import named

KINDS = ("definition", "mechanism", "formula", "number", "half-truth", "follow-up")
VERDICTS = ("right", "half", "wrong")
FOLDER = files("parallel_lab.interview").joinpath("atoms")
_FOLLOW_UP = re.compile(r"\*\*(.+?)\*\*\s+(.+)", re.DOTALL)


@dataclass(frozen=True)
class Atom:
    """One claim of a card, asked and answered in two languages.

    Attributes:
        key: As `E5/formula`; progress is kept under it.
        ask: The question in English; of a half-truth, the sentence to judge.
        zh: The same in Chinese.
        evidence: `notebook#cell-tag`, the cell that measures the answer.
        value: What is to be computed, in `unit`; None where there is no number to type.
        tolerance: How far a typed number may be off, as a share of the value.
        verdict: Of a half-truth: `right`, `half` or `wrong`.
    """

    key: str
    card: str
    kind: str
    chapter: str
    ask: str
    zh: str
    answer: str
    answer_zh: str
    evidence: str
    value: float | None = None
    unit: str = ""
    tolerance: float = 0.02
    verdict: str = ""

    def asked(self, language: str = "en") -> str:
        """The question in `language`, `en` or `zh`."""
        return self.zh if language == "zh" else self.ask

    def answered(self, language: str = "en") -> str:
        """The answer in `language`, as Markdown."""
        return self.answer_zh if language == "zh" else self.answer


@cache
def atoms() -> dict[str, Atom]:
    """All atoms by key, in the order of the index of questions and, within a card, of `KINDS`."""
    return {atom.key: atom for name in index() for atom in _of_card(name)}


def atom(key: str) -> Atom:
    """The atom of this key.

    Raises:
        UnknownName: there is none; this KeyError names the nearest ones.
    """
    return named("atom", key, atoms())


def atoms_of(name: str) -> list[Atom]:
    """The atoms of card `name`, as `"E5"`.

    Raises:
        UnknownName: there is no such card; this KeyError names the nearest ones.
    """
    return [atoms()[one.key] for one in _of_card(ask(name).question.id)]


def _of_card(name: str) -> Iterator[Atom]:
    card = ask(name)
    if not card.sections:
        return
    q, written = card.question, _written().get(name, {})
    yield _atom(card, "definition", "definition", (q.alone, q.zh, card.sections["30 seconds"], card.sections["30 秒"]))
    for kind in KINDS[1:-1]:
        if row := written.get(kind):
            rest = {key: row[key] for key in ("value", "unit", "tolerance", "verdict") if key in row}
            yield _atom(card, kind, kind, (row["ask"], row["zh"], row["answer"], row["answer_zh"]), **rest)
    for n, texts in enumerate(follow_ups(card), 1):
        yield _atom(card, "follow-up", f"follow-up-{n}", texts)


def _atom(card: Card, kind: str, end: str, texts: tuple[str, str, str, str], **rest: Any) -> Atom:
    q = card.question
    return Atom(f"{q.id}/{end}", q.id, kind, q.chapter, *texts, card.evidence, **rest)


def follow_ups(card: Card) -> list[tuple[str, str, str, str]]:
    """The follow-ups of a card: question in English and in Chinese, answer in English and in Chinese."""
    english, chinese = (_pairs(card.sections[heading]) for heading in ("Follow-ups", "追问"))
    return [(ask, zh, answer, answer_zh) for (ask, answer), (zh, answer_zh) in zip(english, chinese, strict=True)]


def _pairs(text: str) -> list[tuple[str, str]]:
    """The questions in bold of a section, and what stands behind each."""
    pieces = re.split(r"\n\n(?=\*\*)", text)
    found = [_FOLLOW_UP.fullmatch(piece.strip()) for piece in pieces]
    return [(match[1], match[2].strip()) for match in found if match]


@cache
def _written() -> dict[str, dict[str, Any]]:
    """The rows of the files, by card."""
    found = [file for file in FOLDER.iterdir() if file.name.endswith(".yaml")]
    return {name: row for file in found for name, row in yaml.safe_load(file.read_text(encoding="utf-8")).items()}
