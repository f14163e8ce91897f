"""What an interviewer says, and what he waits for: a *turn*. Here are those that are answered aloud, and short choices.

A turn knows nothing of widgets or terminals. What is answered aloud is judged by oneself against points; each point is
an atom of the card, or a sentence of an answer. What can be judged by a machine is in `judged.py`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from parallel_lab.course import page
from parallel_lab.course.asked import Choice, Number
from parallel_lab.course.questions import ask
from parallel_lab.course.spoken import hint
from parallel_lab.interview.atoms import VERDICTS, Atom, atoms_of
from parallel_lab.interview.words import in_unit, lang, say

SHORT_S, LONG_S = 30, 120  # what one speaks for, without notes
WORDS = {SHORT_S: {"en": 75, "zh": 120}, LONG_S: {"en": 300, "zh": 480}}  # at 150 words, or 240 signs, a minute
# What an opening answer is judged by beyond the definition. Number and half-truth are asked, so they are not shown.
POINTS = ("mechanism", "formula")
RUBRIC = {
    "weak": {"en": "Weak answer", "zh": "较弱的回答"},
    "strong": {"en": "Strong answer", "zh": "较强的回答"},
    "thirty": {"en": "30 seconds", "zh": "30 秒"},
}
MOST_POINTS = 4  # that a follow-up is judged by
HALF, FULL = 0.3, 0.7  # shares of the points from which an answer is one in part, and a strong one


class Point(NamedTuple):
    """Something that a good answer says; `text` is Markdown."""

    key: str
    text: str


class Judged(NamedTuple):
    """What came of an answer: 1 is strong, 0 is missed; and what is said of it."""

    result: float
    said: str


@dataclass(frozen=True)
class Turn:
    """One thing that is asked.

    Attributes:
        part: The kind of the round that it belongs to.
        kind: How it is answered: `speak`, `number`, `choice`, `code` or `layout`.
        key: What progress keeps the result under.
        chapter: Two digits.
        ask: What the interviewer says, as Markdown in the language of the interview.
        spoken: The same as a voice reads it.
        shown: What there is to read: a log, a program, a stub.
        speak_s: Seconds that one speaks, as a guide; 0 where nothing is spoken.
        points: What an answer aloud is judged by.
        rubric: What is shown after the answer.
        model: What a voice reads out after the answer.
        options: Of a choice.
        stub: The code to begin with.
        judge: Of a machine: what was handed in, and what came of it.
        title: What a report calls it; by default what is asked.
        again: Whether a wrong answer may be mended.
        follow: Which follow-up of its round it is; 0 for none.
        missed: Whether it digs for what the answer before lacked.
    """

    part: str
    kind: str
    key: str
    chapter: str
    ask: str
    spoken: str = ""
    shown: tuple[page.Part, ...] = ()
    speak_s: int = 0
    points: tuple[Point, ...] = ()
    rubric: tuple[page.Part, ...] = ()
    model: str = ""
    options: tuple[str, ...] = ()
    stub: str = ""
    judge: Callable[[Any], Judged] | None = None
    title: str = ""
    again: bool = True
    follow: int = 0
    missed: bool = False


def opening(name: str, part: str, language: str) -> Turn:
    """The question of card `name`; the answer is judged by the atoms of the card."""
    card, atoms = ask(name), atoms_of(name)
    first, rest = atoms[0], [atom for atom in atoms if atom.kind in POINTS]
    points = [
        Point(first.key, say("rounds.direct", language)),
        *(Point(atom.key, atom.answered(language)) for atom in rest),
    ]
    if not rest:
        points = sentences(first, language)
    turn = _spoken(first, part, language, points, LONG_S if part == "deep" else SHORT_S)
    return replace(turn, rubric=rubric(card.sections, language))


def follow_up(atom: Atom, part: str, language: str, *, follow: int = 1, missed: bool = False) -> Turn:
    """The question of one atom: a number to type, a verdict on a half-truth, or an answer aloud."""
    if atom.value is not None:
        turn = _number(atom, part, language)
    elif atom.kind == "half-truth":
        turn = _half_truth(atom, part, language)
    else:
        turn = _spoken(atom, part, language, sentences(atom, language), SHORT_S)
    return replace(turn, follow=follow, missed=missed)


def _turn(atom: Atom, part: str, language: str, kind: str, asked: str, **more: Any) -> Turn:
    """A turn about an atom, whose answer is shown and read out behind it."""
    answer = atom.answered(language)
    shown = page.folded(say("mock.model", language), page.markdown(answer), lang(language), unfolded=True)
    about = {"rubric": (shown,), "model": plain(answer), **more}
    return Turn(part, kind, atom.key, atom.chapter, asked, plain(asked), **about)


def _spoken(atom: Atom, part: str, language: str, points: Sequence[Point], speak_s: int) -> Turn:
    return _turn(atom, part, language, "speak", atom.asked(language), points=tuple(points), speak_s=speak_s)


def _number(atom: Atom, part: str, language: str) -> Turn:
    asked = atom.asked(language)
    right = Number(asked, float(atom.value or 0), atom.unit, atom.tolerance, atom.answered(language))
    words, judge = f"{asked}{in_unit(atom.unit, language)}", partial(number, right, language)
    return _turn(atom, part, language, "number", words, judge=judge)


def number(asked: Number, language: str, given: Any) -> Judged:
    """What a number comes to, with the usual hints in the language of the interview.

    Raises:
        ValueError: it is no number.
    """
    asked.read(str(given))
    passed, said = asked.feedback(str(given))
    return Judged(float(passed), hint(said, language))


def _half_truth(atom: Atom, part: str, language: str) -> Turn:
    options = [say(f"review.{one}", language) for one in VERDICTS]
    asked = Choice("", options, VERDICTS.index(atom.verdict))

    def judge(given: Any) -> Judged:
        # Between right and wrong lies half right: who is one step off has seen something.
        return Judged(1 - abs(asked.read(str(given)) - asked.right) / 2, atom.answered(language))

    words = say("rounds.half-truth", language, ask=atom.asked(language))
    return _turn(atom, part, language, "choice", words, options=tuple(options), judge=judge, again=False)


def rubric(sections: Any, language: str) -> tuple[page.Part, ...]:
    """What separates weak from strong, and below it the short answer."""

    def part(key: str, unfolded: bool) -> page.Part:
        text = page.markdown(sections.get(RUBRIC[key][language], ""))
        return page.folded(say(f"mock.{key}", language), text, lang(language), unfolded=unfolded)

    return part("weak", True), part("strong", True), part("thirty", False)


def sentences(atom: Atom, language: str) -> list[Point]:
    """The sentences of an answer, at most `MOST_POINTS`; the last point holds the rest."""
    gap = "" if language == "zh" else " "
    text = gap.join(atom.answered(language).splitlines())
    pattern = r"(?<=[。！？；])" if language == "zh" else r"(?<=[.!?;])\s+(?=[A-Z`\"“(0-9])"
    pieces = [piece.strip() for piece in re.split(pattern, text) if piece.strip()]
    if len(pieces) > MOST_POINTS:
        pieces = [*pieces[: MOST_POINTS - 1], gap.join(pieces[MOST_POINTS - 1 :])]
    return [Point(f"{atom.key}#{number}", piece) for number, piece in enumerate(pieces, 1)]


def by_share(share: float) -> float:
    """What an answer is worth of whose points this share was said: 1, 0.5 or 0."""
    return 1.0 if share >= FULL else 0.5 if share >= HALF else 0.0


def plain(markdown: str) -> str:
    """Text as a voice reads it: without marks, and with the names of what a voice skips."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", markdown)
    return re.sub(r"[`$]+|\*\*", "", text).strip()
