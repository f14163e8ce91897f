"""The turns of an interview in their order: what a deep round asks next depends on the answer before."""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from parallel_lab.course import progress
from parallel_lab.interview import judged, rounds
from parallel_lab.interview.choosing import Chooser
from parallel_lab.interview.designs import design
from parallel_lab.interview.noted import Note
from parallel_lab.interview.roles import Role, Round
from parallel_lab.interview.rounds import Turn
from parallel_lab.interview.words import from_english, say


class Script:
    """What is asked, turn by turn.

    Attributes:
        parts: The rounds.
        place: That of the round that goes on.
        notes: What came of the turns so far; whoever asks adds to it.
        left_out: Why a round was left out; empty where none was.
    """

    def __init__(
        self, role: Role, parts: Sequence[Round], language: str, seed: int, told: Callable[[str], None] | None
    ) -> None:
        self.parts, self.place, self.left_out = parts, -1, ""
        self.notes: list[Note] = []
        self._language, self._dice = language, Random(seed)
        self._told = told or (lambda words: None)  # is told what takes a while
        self._chooser = Chooser(role, self._dice, progress.now())
        self._turns = self._all()

    def next(self) -> Turn | None:
        """The next turn; None after the last one."""
        return next(self._turns, None)

    def _all(self) -> Iterator[Turn]:
        for place, part in enumerate(self.parts):
            self.place, self._began = place, progress.now()
            try:
                yield from self._asked_in(part)
            except (OSError, RuntimeError) as error:  # no ranks to be had, or the course's notebooks are not here
                self.left_out = self._say("skipped", why=from_english(str(error).split("\n")[0], self._language))

    def _asked_in(self, part: Round) -> Iterator[Turn]:
        choose, language = self._chooser, self._language
        if part.kind == "number":
            yield judged.number(choose.drill(), language, self._dice)
        elif part.kind == "log":
            self._told(self._say("wait"))
            yield judged.log(choose.case(), language, self._dice)
        elif part.kind == "code":
            yield judged.code(choose.task(part.minutes), language)
        elif part.kind == "design":
            self._told(self._say("wait-plan"))
            yield design(choose.design(), language)
        else:
            yield from self._spoken(part)

    def _spoken(self, part: Round) -> Iterator[Turn]:
        """A question, and follow-ups that dig where the answer was weak, until the minutes of the round are over."""
        name = self._chooser.card()
        yield rounds.opening(name, part.kind, self._language)
        for follow in range(1, part.follow_ups + 1):
            missing, missed = self._weak()
            found = self._chooser.dig(name, missing, missed)
            if found is None or (progress.now() - self._began).total_seconds() > 60 * part.minutes:
                return
            yield rounds.follow_up(found[0], part.kind, self._language, follow=follow, missed=found[1])

    def _weak(self) -> tuple[list[str], str]:
        """The points of the opening that were not said, and the key of the last turn if it was not strong."""
        opening = next(note for note in reversed(self.notes) if note.turn.key.endswith("/definition"))
        missing = [point.key for point in opening.turn.points if point.key not in opening.ticked]
        last = self.notes[-1]
        return missing, last.turn.key if last.word != "strong" else ""

    def _say(self, key: str, **values: str) -> str:
        return say(f"mock.{key}", self._language, **values)
