"""The terms of the glossary, asked both ways: from English to Chinese and back.

They are atoms of the kind `term`, so that they are reviewed as all others are. A term that Chinese engineers say in
English is not asked. `judged` reads a typed answer. A word that is understood counts; the course's own is named.
"""

import re
from functools import cache
from typing import Any

from parallel_lab.course.questions import ask, index
from parallel_lab.course.terms import read
from parallel_lab.course.typed import named
from parallel_lab.interview.atoms import Atom
from parallel_lab.interview.words import say

KIND = "term"
PREFIX = "term/"
_SPLIT = re.compile(r"[;；,，]|（.*?）|\(.*?\)")

_SHORT = re.compile(r"(?<=\()[A-Z]+(?=\))|^\w+(?= of )")  # what one says for short: MTBF, or precision


def terms() -> list[Atom]:
    """All terms, first each asked for in Chinese, `term/straggler/zh`, then in English, `term/straggler/en`."""
    return list(_terms().values())


def term(key: str) -> Atom:
    """The term of this key.

    Raises:
        UnknownName: there is none; this KeyError names the nearest ones.
    """
    return named("term", key, _terms())


@cache
def _terms() -> dict[str, Atom]:
    rows = [row for row in read("glossary") if row["en"] != row["zh"]]
    found = (_atom(row, to, row.get("chapter") or _chapter(row["en"])) for to in ("zh", "en") for row in rows)
    return {atom.key: atom for atom in found}


def _atom(row: dict[str, Any], to: str, chapter: str) -> Atom:
    given, wanted = (row["en"], row["zh"]) if to == "zh" else (row["zh"], row["en"])
    english, chinese = (say(f"vocabulary.to-{to}", language, term=given) for language in ("en", "zh"))
    return Atom(f"{PREFIX}{row['en']}/{to}", "", KIND, chapter, english, chinese, wanted, wanted, "")


def _chapter(english: str) -> str:
    """The first chapter with a card that says the term; `00` where none does."""
    words = [word for word in _forms(english) if len(word) > 2]
    return min((chapter for chapter, text in _texts() if any(word in text for word in words)), default="00")


@cache
def _texts() -> list[tuple[str, str]]:
    """The chapter and the text of each card."""
    return [(one.chapter, " ".join(ask(name).sections.values()).lower()) for name, one in index().items()]


def judged(key: str, given: str, language: str = "en") -> tuple[bool, str]:
    """Whether a typed answer to the term `key` is understood, and which word the course has.

    Raises:
        UnknownName: there is no such term; this KeyError names the nearest ones.
    """
    atom = term(key)
    short = [one for one in _SHORT.findall(atom.answer) if one not in atom.zh]
    if _plain(given) in {_plain(form) for form in (atom.answer, *_forms(atom.answer), *short)}:
        return True, atom.answer
    row = next(row for row in read("glossary") if key in (f"{PREFIX}{row['en']}/zh", f"{PREFIX}{row['en']}/en"))
    if key.endswith("/zh") and given.strip() in row["not"]:
        return True, say("vocabulary.not-said", language, given=given.strip(), right=row["zh"])
    return False, say("vocabulary.other", language, right=atom.answer)


def _forms(term: str) -> list[str]:
    """The ways in which a term may be written: `to shard; shard` is both, `synchronous (BSP)` the one outside too."""
    return [piece.strip().lower() for piece in _SPLIT.split(term) if piece.strip()]


def _plain(text: str) -> str:
    return re.sub(r"[\s\-_]+", "", text.strip().lower())
