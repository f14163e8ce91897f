"""What stands on a note of a deck: cards and atoms as HTML with formulas, in both languages, with the measured proof.

Each note has an id that stays, so that a later deck brings new words and leaves the learner's history alone.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape, unescape

from parallel_lab.course import page
from parallel_lab.course.questions import SECTIONS, Card, ask, index
from parallel_lab.course.typed import named
from parallel_lab.interview.atoms import Atom, atoms
from parallel_lab.interview.formulas import SPAN, tex
from parallel_lab.interview.stored import Picture, first_page, proof
from parallel_lab.interview.vocabulary import PREFIX as TERM
from parallel_lab.interview.vocabulary import terms
from parallel_lab.interview.words import LANGUAGES, say

BOTH = "both"
CHOICES = (BOTH, *LANGUAGES)
KINDS = ("Cards", "Atoms", "Terms")
SHORT = {"en": "30 seconds", "zh": "30 秒"}
_PRINTED_LINES = 30


@dataclass(frozen=True)
class Side:
    r"""One language of a note, as HTML with formulas in `\( \)`."""

    question: str
    answer: str
    more: str = ""  # what is folded below the answer
    plain: tuple[str, str] = ("", "")  # question and answer as Markdown, for tables


@dataclass(frozen=True)
class Note:
    """A note: of a card (`E5`), of an atom (`E5/formula`) or of a term in one direction (`term/straggler/zh`)."""

    id: str
    chapter: str
    tags: tuple[str, ...]
    sides: Mapping[str, Side]  # by language
    proof: Mapping[str, str]  # by language: what was measured, and where it stands
    picture: Picture | None = None

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return "Terms" if self.id.startswith(TERM) else "Atoms" if "/" in self.id else "Cards"


def notes(chapter: str | None = None, with_atoms: bool = True) -> list[Note]:
    """The notes of all cards, then of all atoms and terms, or of those of one chapter.

    A card's note asks what its first atom asks, `E5/definition`, so that atom has no note of its own.

    Raises:
        UnknownName: no question is answered in this chapter.
    """
    if chapter is not None:
        known = sorted({question.chapter for question in index().values()})
        chapter = named("chapter with questions", chapter.zfill(2), dict(zip(known, known, strict=True)))
    cards = [ask(name) for name, question in index().items() if chapter in (None, question.chapter)]
    cut = [one for one in atoms().values() if one.kind != "definition" and chapter in (None, one.chapter)]
    words = [_of_term(one) for one in terms() if with_atoms and chapter in (None, one.chapter)]
    return [*(_of_card(card) for card in cards if card.sections), *(map(_of_atom, cut) if with_atoms else ()), *words]


def html(markdown: str) -> str:
    r"""Markdown as HTML, with its formulas between `\(` and `\)`."""
    return SPAN.sub(_formula, page.markdown(markdown).html).strip()


def _formula(found: re.Match) -> str:
    set_as = tex(unescape(found[1]))
    return found[0] if set_as is None else rf"\({escape(set_as, quote=False)}\)"


def _of_card(card: Card) -> Note:
    q = card.question
    sides = {language: _side(card, language) for language in LANGUAGES}
    tags = ("parallel-lab", f"parallel-lab::chapter-{q.chapter}", f"parallel-lab::{q.kind}")
    proofs = {language: "".join(_proof(card.evidence, language)) for language in LANGUAGES}
    return Note(q.id, q.chapter, tags, sides, proofs, _picture(card))


def _side(card: Card, language: str) -> Side:
    question = card.question.zh if language == "zh" else card.question.alone
    short = card.sections[SHORT[language]]
    head = f'<p class="kind">{card.question.chapter} · {card.question.id}</p>'
    return Side(f"{head}<p>{escape(question)}</p>", html(short), "".join(_folded(card, language)), (question, short))


def _folded(card: Card, language: str) -> Iterator[str]:
    """The sections below the short answer."""
    for heading, text in card.sections.items():
        title, lang = SECTIONS.get(heading, (heading, ""))
        if heading not in SHORT.values() and (lang or "en") == language:
            yield f"<details><summary>{escape(title)}</summary>{html(text)}</details>"


def _of_atom(atom: Atom) -> Note:
    sides = {}
    for language in LANGUAGES:
        asked, answer = atom.asked(language), _answer(atom, language)
        head = f'<p class="kind">{escape(say(f"anki.{atom.kind}", language))} · {atom.chapter} · {atom.card}</p>'
        sides[language] = Side(head + html(asked), html(answer), plain=(asked, answer))
    tags = ("parallel-lab", f"parallel-lab::chapter-{atom.chapter}", f"parallel-lab::{atom.kind}")
    return Note(atom.key, atom.chapter, tags, sides, {lang: "".join(_where(atom.evidence, lang)) for lang in LANGUAGES})


def _of_term(atom: Atom) -> Note:
    """A term is asked once, in the language it is given in; the answer is the word in the other one."""
    asks_in = "en" if atom.key.endswith("/zh") else "zh"
    plain = {language: (atom.asked(language), atom.answer) for language in LANGUAGES}
    sides = {language: Side("", "", plain=plain[language]) for language in LANGUAGES}
    sides[asks_in] = Side(html(atom.asked(asks_in)), html(atom.answer), plain=plain[asks_in])
    tags = ("parallel-lab", f"parallel-lab::chapter-{atom.chapter}", f"parallel-lab::{atom.kind}")
    return Note(atom.key, atom.chapter, tags, sides, dict.fromkeys(LANGUAGES, ""))


def _answer(atom: Atom, language: str) -> str:
    """The answer; that of a half-truth begins with the verdict."""
    said = atom.answered(language)
    return f"**{say(f'anki.verdict-{atom.verdict}', language)}** {said}" if atom.verdict else said


def _proof(evidence: str, language: str) -> Iterator[str]:
    """What the cell printed, and where it stands."""
    found = proof(evidence)
    if found and found.text:
        lines = found.text.splitlines()
        cut = [*lines[:_PRINTED_LINES], "…"] if len(lines) > _PRINTED_LINES else lines
        yield f"<p>{escape(say('anki.printed', language))}</p><pre>{escape(chr(10).join(cut))}</pre>"
    yield from _where(evidence, language)


def _where(evidence: str, language: str) -> Iterator[str]:
    if found := proof(evidence):
        where = say("anki.where", language, notebook=found.notebook, heading=found.heading)
        yield f'<p class="where">{escape(where)}</p>'


def _picture(card: Card) -> Picture | None:
    """The picture of the proof, else that of the chapter's first page."""
    if (found := proof(card.evidence)) is None:
        return None
    shown = (one for one in first_page(card.question.chapter)[1] if isinstance(one, Picture))
    return found.picture or next(shown, None)
