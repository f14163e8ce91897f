"""One thing that is asked in a review: an atom, a drill with fresh numbers, a question of a self-check.

A number, an option or a verdict is judged by the machine; what is said aloud, by oneself. Either way one rating is
kept, with the confidence that was stated before the answer.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from parallel_lab.course import events, page, practice, progress
from parallel_lab.course.asked import Choice, Number, reads
from parallel_lab.course.drills import problems
from parallel_lab.course.drills.chinese import spoken_in
from parallel_lab.course.drills.engine import Drawn
from parallel_lab.course.quizzes import sheets
from parallel_lab.course.spoken import hint
from parallel_lab.interview.atoms import VERDICTS, Atom, atom
from parallel_lab.interview.feeds import feeders, log_of
from parallel_lab.interview.memory import Memory, replay
from parallel_lab.interview.proofs import link
from parallel_lab.interview.queue import Item
from parallel_lab.interview.vocabulary import KIND as TERM
from parallel_lab.interview.vocabulary import judged, term
from parallel_lab.interview.words import in_unit, lang, say

RATINGS = (events.AGAIN, events.HARD, events.GOOD, events.EASY)
CONFIDENCES = (0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Word:
    """A term to type, in the other language; a wrong one is told the right one, so there is one try."""

    question: str
    key: str
    language: str = "en"
    unit = ""
    why = ""

    def read(self, given: str | None) -> str:
        """What was typed."""
        if not (given or "").strip():
            raise ValueError("nothing was typed")
        return str(given)

    def feedback(self, given: str | None) -> tuple[bool, str]:
        """Whether it is the course's word, and what to say to another one."""
        right, said = judged(self.key, self.read(given), self.language)
        return right, "" if right else said


Judged = Number | Choice | Word


@dataclass
class Asking:
    """An item as it is asked, from the question to the rating.

    Attributes:
        language: Of the question.
        answer_language: Of the answer.
        judged: What a machine judges; None where one judges oneself.
        drawn: The numbers of a drill.
        confidence: What was stated before the answer, from 0 to 1.
        failed: How many wrong answers were given.
        rating: What is kept; None while it is open.
        warning: What is wrong with the progress file, if anything.
    """

    item: Item
    language: str = "en"
    answer_language: str = "en"
    dice: Random = field(default_factory=Random)
    judged: Judged | None = None
    drawn: Drawn | None = None
    confidence: float | None = None
    failed: int = 0
    rating: int | None = None
    warning: str = ""

    def __post_init__(self) -> None:
        if self.item.kind == "drill":
            self._draw(self.item.key.removeprefix("drill/"))
        elif self.item.kind == "quiz":
            chapter, _, number = self.item.key.removeprefix("quiz/").partition("-")
            self.judged = sheets(self.language)[chapter].quiz[int(number) - 1]
        else:
            self._atom()

    def _atom(self) -> None:
        one = self.atom
        asked = one.asked(self.language)
        if one.kind == TERM:
            self.judged = Word(asked, one.key, self.language)
        elif one.value is not None:
            self.judged = Number(asked, float(one.value), one.unit, one.tolerance)
        elif one.kind == "half-truth":
            words = [say(f"review.{verdict}", self.language) for verdict in VERDICTS]
            self.judged = Choice(asked, words, VERDICTS.index(one.verdict))

    def _draw(self, name: str) -> None:
        self.drawn = spoken_in(self.language, name, problems()[name].draw(self.dice))
        self.judged = practice.asked(self.drawn)

    @property
    def atom(self) -> Atom:
        """The atom or the term that is asked."""
        return term(self.item.key) if self.item.kind == TERM else atom(self.item.key)

    @property
    def drills(self) -> list[str]:
        """The drills that ask for the same with fresh numbers."""
        fed = feeders().get(self.item.key, ())
        return [key.removeprefix("drill/") for key in fed if key.startswith("drill/")]

    def as_drill(self) -> None:
        """Asks a drill of the same claim in place of the atom; what comes of it feeds the atom."""
        name = self.dice.choice(self.drills)
        self.item = Item(f"drill/{name}", "drill", self.item.chapter)
        self._draw(name)

    @property
    def head(self) -> str:
        """What is asked, in a line: the kind, the card and the chapter."""
        kind = say(f"review.kind-{self.item.kind}", self.language)
        first, _, second = self.item.key.partition("/")
        name = {"drill": f" {second}", "quiz": "", TERM: ""}.get(self.item.kind, f" {first}")
        return f"{kind}{name} · {say(f'chapter.{self.item.chapter}', self.language)}"

    @property
    def question(self) -> list[page.Part]:
        """The question, and of a half-truth what one is to do with it."""
        one, name = self.judged, lang(self.language)
        words = one.question if one else self.atom.asked(self.language)
        if self.item.kind == "half-truth":
            words = say("review.judge", self.language, claim=words)
        unit = in_unit(one.unit, self.language) if one else ""
        return [page.paragraph(self.head, "small", name), in_language(f"{words}{unit}", name)]

    def answer(self, given: str | None) -> tuple[bool, str]:
        """Whether what was typed or picked is right, and what is said; what is right, or a wrong option, is kept."""
        one = self.judged
        if one is None or self.rating is not None:
            return False, ""
        if not reads(one, given):
            kind = {Choice: "option", Word: "word"}.get(type(one), "number")
            return False, say(f"review.no-{kind}", self.language)
        right, said = one.feedback(given)
        if right:
            self._keep(events.HARD if self.failed else events.GOOD)
            return True, one.why
        self.failed += 1
        if not isinstance(one, Number):
            self._keep(events.AGAIN)
            return False, "" if self.item.kind == "half-truth" else said
        return False, hint(said, self.language)

    def give_up(self) -> None:
        """Keeps that the answer was asked for before a right one."""
        if self.rating is None:
            self._keep(events.AGAIN)

    def rate(self, rating: int) -> None:
        """Keeps how well one knew what one judges oneself."""
        if self.rating is None:
            self._keep(rating)

    def _keep(self, rating: int) -> None:
        self.rating, key = rating, self.item.key
        if self.drawn:
            name, right = key.removeprefix("drill/"), rating != events.AGAIN
            if self.failed and right:
                progress.record_drill(name, False, self.confidence)
            self.warning = progress.record_drill(name, right, self.confidence)
        else:
            self.warning = progress.record_review(key, rating, "quiz" if self.judged else "self", self.confidence)

    def solution(self) -> list[page.Part]:
        """The answer, in the language of answers, and the cell that measures it."""
        if self.drawn:
            return practice.solution(self.drawn, self.language)
        if self.item.kind == "quiz":
            return [in_language(self.judged.why, lang(self.language))] if self.judged and self.judged.why else []
        one, language = self.atom, self.answer_language
        text = one.answered(language)
        if isinstance(self.judged, Choice):
            text = say("review.verdict", language, verdict=say(f"review.{one.verdict}", language), why=text)
        where = [link(one.evidence, self.language)] if one.evidence else []
        return [in_language(text, lang(language)), *where]

    def memory(self) -> Memory | None:
        """What the log comes to now."""
        return replay(log_of(self.item.key, progress.read()["reviews"]))


def in_language(text: str, name: str = "") -> page.Part:
    """Markdown in a language."""
    part = page.markdown(text)
    return page.Part(f'<div lang="{name}">{part.html}</div>', part.text) if name else part


def again_on(asking: Asking) -> str:
    """When it is asked again, in words."""
    memory = asking.memory()
    if memory is None:
        return ""
    left = memory.due - progress.now()
    if memory.in_steps:
        return say("review.again-minutes", asking.language, minutes=max(1, round(left.total_seconds() / 60)))
    return say("review.again-on", asking.language, day=events.day(memory.due))


def sure(text: Any) -> float | None:
    """A typed confidence in per cent as a share; None where nothing was typed.

    Raises:
        ValueError: it is no number from 0 to 100.
    """
    typed = str(text or "").strip().rstrip("%").strip()
    if not typed:
        return None
    share = float(typed) / 100 if typed.replace(".", "", 1).isdecimal() else -1.0
    if not 0 <= share <= 1:
        raise ValueError(typed)
    return share
