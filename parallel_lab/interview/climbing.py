"""The ladder of half-truths, free of any form: is the sentence right, half right or wrong? the number; the evidence.

A rung is a sentence as people say it, the number that goes with it where its card has one, and the cell that
measures the answer. A verdict brings 2 points, 1 where it is one step off; a number brings 2 at once and 1 at a second
try. What is answered is kept at once, for the sentence with the confidence that was stated; the score at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from random import Random
from typing import NamedTuple

from parallel_lab.course import page, progress
from parallel_lab.course.asked import Number, reads
from parallel_lab.course.events import AGAIN, GOOD, HARD
from parallel_lab.course.spoken import hint
from parallel_lab.interview.asking import in_language
from parallel_lab.interview.atoms import VERDICTS, Atom, atoms
from parallel_lab.interview.kept import before, in_turn
from parallel_lab.interview.proofs import Evidence, Told, evidence
from parallel_lab.interview.queue import chapter_named
from parallel_lab.interview.words import lang, language_of, say

COUNT = 5
TRIES = 2  # at a number
EXACT, NEAR = 2, 1  # points


class Rung(NamedTuple):
    """A sentence to judge, and the number of the same card; None where it has none."""

    sentence: Atom
    number: Atom | None


@dataclass
class Climb:
    """A way up the ladder.

    Attributes:
        rungs: What is asked, in order.
        language: `en` or `zh`.
        place: Which rung it is at.
        points: What was reached.
        most: What could have been reached so far.
        tries: At the number of this rung.
        began: When it began.
        warning: Why the progress was not kept, if so.
    """

    rungs: Sequence[Rung]
    language: str = "en"
    place: int = 0
    points: int = 0
    most: int = 0
    tries: int = 0
    began: datetime = field(default_factory=lambda: progress.now())
    warning: str = ""

    @property
    def rung(self) -> Rung:
        """The one that it is at."""
        return self.rungs[self.place]

    @property
    def over(self) -> bool:
        """Whether there is no further rung."""
        return self.place >= len(self.rungs)

    def judge(self, verdict: str, confidence: float | None = None) -> page.Page:
        """Judges a verdict on the sentence, `right`, `half` or `wrong`, and says what is to be said of it.

        Raises:
            ValueError: it is none of the three.
        """
        atom = self.rung.sentence
        if verdict not in VERDICTS:
            raise ValueError(say("ladder.no-verdict", self.language, given=verdict))
        apart = abs(VERDICTS.index(verdict) - VERDICTS.index(atom.verdict))
        self._reached(max(0, EXACT - apart))
        self._keep(atom.key, GOOD if apart == 0 else AGAIN, confidence)
        return self._said(apart == 0, f"ladder.is-{atom.verdict}", atom)

    def answer(self, given: str) -> tuple[bool, page.Page]:
        """Judges a number; whether the question is over, and what is said of it."""
        atom = self.rung.number
        assert atom and atom.value is not None
        asked = Number(atom.asked(self.language), atom.value, atom.unit, atom.tolerance)
        if not reads(asked, given):
            said = say("review.no-number", self.language)
            return False, page.Page(said, [page.paragraph(said, lang=lang(self.language))], "note")
        right, said = asked.feedback(given)
        self.tries += 1
        if right or self.tries >= TRIES:
            return True, self._end_number(right)
        word, tongue = say("common.not-yet", self.language), lang(self.language)
        return False, page.verdict(False, word, hint(said, self.language), tongue)

    def show_number(self) -> page.Page:
        """Gives the number up."""
        self.tries = TRIES
        return self._end_number(False)

    def _end_number(self, right: bool) -> page.Page:
        atom = self.rung.number
        assert atom
        self._reached((EXACT if self.tries == 1 else NEAR) if right else 0)
        self._keep(atom.key, (GOOD if self.tries == 1 else HARD) if right else AGAIN, None)
        return self._said(right, "common.right" if right else "ladder.number-is", atom)

    def _said(self, right: bool, key: str, atom: Atom) -> page.Page:
        """The verdict `key`, then the answer."""
        shown = page.verdict(right, say(key, self.language), lang=lang(self.language))
        answer = in_language(atom.answered(self.language), lang(self.language))
        return shown._replace(parts=[*shown.parts, answer, *self._warned()])

    def evidence(self, told: Told | None = None) -> Evidence:
        """Runs the cell that measures the answer."""
        return evidence(self.rung.sentence.card, self.language, told)

    def step(self) -> None:
        """Goes on to the next rung."""
        self.place, self.tries = self.place + 1, 0

    def finish(self) -> page.Page:
        """Keeps the score, if anything was answered, and says it."""
        if self.most:
            took_s = (progress.now() - self.began).total_seconds()
            report = {"kind": "ladder", "points": self.points, "most": self.most, "took_s": round(took_s)}
            self.warning = progress.record_round(self.began.isoformat(timespec="seconds"), report)
        said = say("ladder.score", self.language, points=self.points, most=self.most)
        parts = [page.paragraph(said, "head", lang(self.language)), *self._warned()]
        if earlier := before("ladder", self.began.isoformat(timespec="seconds"), self.language):
            parts.append(page.paragraph(earlier, lang=lang(self.language)))
        return page.Page(said, parts, "note")

    def _reached(self, points: int) -> None:
        self.points, self.most = self.points + points, self.most + EXACT

    def _keep(self, key: str, rating: int, confidence: float | None) -> None:
        self.warning = progress.record_review(key, rating, "ladder", confidence)

    def _warned(self) -> list[page.Part]:
        return [page.paragraph(self.warning)] if self.warning else []


def climb(
    count: int = COUNT, *, chapter: str | None = None, seed: int | None = None, language: str | None = None
) -> Climb:
    """A way up: half-truths that were never judged first, then those that are due, then those that are due soonest.

    Args:
        count: how many rungs at most.
        chapter: only of this one, as `"09"`.
        seed: the same order for the same seed and the same progress; a fresh one without.
        language: `en` or `zh`; that of the environment by default.

    Raises:
        ValueError: there is no such chapter, none of its cards has a half-truth, or no such language.
    """
    own = language_of(language)
    of = chapter_named(chapter, own)
    found = [one for one in atoms().values() if one.kind == "half-truth" and of in (None, one.chapter)]
    if not found or count < 1:
        raise ValueError(say("ladder.nothing", own))
    chosen = in_turn(found, attrgetter("key"), Random(seed))[:count]
    return Climb([Rung(one, _number(one.card)) for one in chosen], own)


def _number(card: str) -> Atom | None:
    atom = atoms().get(f"{card}/number")
    return atom if atom and atom.value is not None else None
