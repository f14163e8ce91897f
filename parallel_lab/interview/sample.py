"""An interview as an example: what is asked, what an imagined candidate says, and the report that comes of it.

The candidate says the first half of the points of each answer aloud, types 1 for a number, picks causes by chance and
hands in code as it was given. Everything else is an interview as any other; the learner's progress is neither read nor
changed.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from parallel_lab.course import page
from parallel_lab.course.asked import lettered
from parallel_lab.course.progress import VARIABLE
from parallel_lab.interview.mock import Mock
from parallel_lab.interview.report import report
from parallel_lab.interview.rounds import Turn
from parallel_lab.interview.words import lang, language_of, say


class Answered(NamedTuple):
    """One turn: what was asked, what the candidate gave, what was said to it."""

    where: str
    turn: Turn
    given: str
    said: tuple[page.Part, ...]


@dataclass(frozen=True, repr=False)
class Sample(page.Shown):
    """An interview that was taken, ready to be shown; see `sample_interview`."""

    answered: tuple[Answered, ...]
    report: page.Page
    language: str

    def as_page(self) -> page.Page:
        """What was asked and answered, then the report."""
        title = say("sample.title", self.language)
        about = page.paragraph(say("sample.about", self.language), "small", lang(self.language))
        turns = (part for one in self.answered for part in self._turn(one))
        return page.Page(title, [page.paragraph(title, "head", lang(self.language)), about, *turns, *self.report.parts])

    def _turn(self, one: Answered) -> Iterator[page.Part]:
        spoken = lang(self.language)
        yield page.paragraph(one.where, "head", spoken)
        yield page.markdown(one.turn.ask)
        yield from one.turn.shown
        yield from (page.paragraph(option, "", spoken) for option in lettered(one.turn.options))
        yield page.paragraph(say(f"sample.{one.turn.kind}", self.language, given=one.given), "", spoken)
        yield from one.said


def sample_interview(
    role: str = "infrastructure", minutes: int = 15, language: str | None = None, *, seed: int = 1
) -> Sample:
    """Takes an interview with an imagined candidate.

    Args:
        role: `infrastructure`, `researcher` or `lead`.
        minutes: 15, 30, 45 or 60.
        language: `en` or `zh`; by default that of the environment.
        seed: of what is asked, and of what is picked by chance.

    Raises:
        UnknownName: there is no such role; this KeyError names the nearest ones.
        ValueError: there is no interview of this length, or no such language.
    """
    chosen, dice = language_of(language), Random(seed)
    with _own_progress():
        mock = Mock(role, minutes, chosen, seed=seed)
        answered = []
        while mock.turn:
            answered.append(_answer(mock, mock.turn, dice))
            mock.go_on()
        return Sample(tuple(answered), report(language=chosen).as_page(), chosen)


def _answer(mock: Mock, turn: Turn, dice: Random) -> Answered:
    """What the candidate of the head of the file does."""
    if turn.points:
        mock.answer()
        ticked = turn.points[: (len(turn.points) + 1) // 2]
        mock.mark([point.key for point in ticked])
        # The first point of an opening is that the question is answered at all.
        texts = [turn.model if point.key == turn.key else point.text for point in ticked]
        return Answered(mock.where, turn, "", tuple(page.markdown(f"- {text}") for text in texts))
    letter = dice.choice(lettered(turn.options))[0] if turn.options else ""
    given = {"number": "1", "choice": letter, "code": turn.stub, "layout": "dp = 1"}[turn.kind]
    said = tuple(mock.answer(given).parts)
    solved = () if mock.answered else tuple(mock.reveal().parts)
    return Answered(mock.where, turn, given, (*said, *solved))


@contextmanager
def _own_progress() -> Iterator[None]:
    """A progress file of its own while the block runs."""
    before = os.environ.get(VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder) / "progress.json")
        try:
            yield
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before
