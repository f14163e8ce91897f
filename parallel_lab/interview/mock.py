"""A mock interview, free of any screen: what is asked next, what came of each answer, and what is kept.

    interview = Mock("lead", minutes=15, language="en", seed=1)
    while turn := interview.turn:
        interview.answer("...")            # shows the rubric, or what a machine says
        interview.mark({"E5/formula"})     # after an answer aloud: what was said
        interview.go_on()

Everything is kept after each turn, so an interview that is interrupted has lost nothing. An `interviewer` is a function
of a turn and of what was typed that returns an `Opinion`, or None: a model of one's own may be plugged in there. There
is none by default, and nothing leaves the machine.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from random import Random
from typing import Any

from parallel_lab.course import page, progress
from parallel_lab.course.events import GOOD, HARD, logged
from parallel_lab.interview.noted import Interviewer, Note, opinion_of
from parallel_lab.interview.roles import form_of, role_named
from parallel_lab.interview.rounds import Turn, by_share
from parallel_lab.interview.script import Script
from parallel_lab.interview.words import from_english, lang, language_of, say

FULL_MARK = 1.0  # the result of an answer that needs no second one


class Mock:
    """An interview that is going on; see the head of the file."""

    def __init__(
        self,
        role: str,
        minutes: int = 15,
        language: str | None = None,
        *,
        seed: int | None = None,
        interviewer: Interviewer | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.role, self.minutes, self.rounds = role_named(role), minutes, form_of(minutes)
        self.language, self.interviewer = language_of(language), interviewer
        self.seed = Random().randrange(10**6) if seed is None else seed
        self.began = progress.now()
        self.warning = ""
        self.finished = self.stopped = False
        self.turn: Turn | None = None
        self._script = Script(self.role, self.rounds, self.language, self.seed, told)
        self.answered = True  # the turn is over and `go_on` is next
        self._note: Note | None = None
        self._waited_s = 0.0  # for ranks and planner to bring the next turn; it is not taken off the clock
        self.go_on()

    # What is answered

    def answer(self, given: Any = "", confidence: float | None = None) -> page.Page:
        """Takes an answer: notes on what was said aloud, a number, a letter, code or a layout; says what comes of it.

        Args:
            given: as the turn wants it; where something is spoken, notes or nothing.
            confidence: how sure one was before, from 0 to 1; None if it was not stated.
        """
        if (turn := self.turn) is None or self._note is None:
            return page.Page(self.say("title"), [page.paragraph(self.say("nothing"), lang=lang(self.language))], "note")
        note = self._note
        if note.tries == 0 and not self.answered:
            note.confidence = confidence
        if turn.judge is None:
            self.answered = True
            return self._rubric(turn, str(given))
        try:
            result, said = turn.judge(given)
        except ValueError as error:  # no answer at all, so it costs nothing
            return self._said(False, from_english(str(error), self.language), ())
        if not self.answered:  # once it is over, or given up, nothing counts
            note.tries += 1
            note.result = max(note.result, result if note.tries == 1 else 0.5 * result)
        right = result >= FULL_MARK
        self.answered = self.answered or right or not turn.again
        if self.answered:
            return self._said(right, said, turn.rubric)
        return self._said(False, self.say("again", said=said), ())

    def reveal(self) -> page.Page:
        """Gives up what a machine judges, and shows the way to it; what was reached so far counts."""
        self.answered = True
        after = self.turn.rubric if self.turn else ()
        return page.Page(
            self.say("solution"), [page.paragraph(self.say("solution"), "head", lang(self.language)), *after]
        )

    def _said(self, right: bool, said: str, after: Collection[page.Part]) -> page.Page:
        word = say("common.right" if right else "common.not-yet", self.language)
        shown = page.verdict(right, word.rstrip(".。"), lang=lang(self.language))
        return shown._replace(parts=[*shown.parts, page.markdown(said), *after])

    def _rubric(self, turn: Turn, given: str) -> page.Page:
        """What separates a weak answer from a strong one; what a plugged-in interviewer says stands first."""
        parts = []
        if self.interviewer:
            opinion = opinion_of(self.interviewer, turn, given, self.language)
            parts = [page.paragraph(opinion.said, lang=lang(self.language))] if opinion.said else []
            if self._note:
                self._note.ticked = [point.key for point in turn.points if point.key in opinion.ticked]
        return page.Page(self.say("strong"), [*parts, *turn.rubric], "note")

    @property
    def suggested(self) -> list[str]:
        """Keys of the points that a plugged-in interviewer has heard."""
        return self._note.ticked if self._note else []

    def mark(self, ticked: Collection[str]) -> str:
        """Notes which points of an answer aloud were said; returns `strong`, `partly` or `missed`."""
        if self._note is None or not self._note.turn.points:
            return ""
        note = self._note
        note.ticked = [point.key for point in note.turn.points if point.key in ticked]
        note.result = by_share(len(note.ticked) / len(note.turn.points))
        return note.word

    # What follows

    def go_on(self) -> Turn | None:
        """Keeps the last turn and asks the next; None when the interview is over."""
        self._keep()
        late, before = self.left_s <= 0, progress.now()
        self.turn = None if late or self.finished else self._script.next()
        self.warning, self._script.left_out = self.warning or self._script.left_out, ""
        if self.turn is None:
            self._end(stopped=False)
            return None
        self._waited_s += self._spent_s(before)
        self._note, self.answered = Note(self.turn), False
        self._asked_at = progress.now()
        return self.turn

    def stop(self) -> None:
        """Ends the interview here; what was answered is kept."""
        self._note = self._note if self.answered else None
        self._keep()
        self._end(stopped=True)

    def _keep(self) -> None:
        if (note := self._note) is None:
            return
        self._note = None
        note.used_s = self._spent_s(self._asked_at)
        self.notes.append(note)
        for key, rating in self._ratings(note):
            sure = note.confidence if key == note.turn.key else None  # it was stated of what was asked alone
            self.warning = progress.record_review(key, rating, "mock", sure) or self.warning
        self._save()

    def _ratings(self, note: Note) -> Iterator[tuple[str, int]]:
        """What memory is told of a turn; what was said only when it was asked for is hard."""
        turn = note.turn
        if not self._logged(turn.key):  # as the grader of an exercise does
            yield turn.key, min(note.rating, HARD) if turn.missed else note.rating
        if turn.key.endswith("/definition"):
            yield from ((key, GOOD) for key in note.ticked if key != turn.key and "#" not in key)

    def _logged(self, key: str) -> bool:
        """Whether something was logged of `key` since it was asked."""
        log, since = logged(progress.read()["reviews"], key), self._asked_at.replace(microsecond=0)
        return bool(log) and datetime.fromisoformat(log[-1]["at"]) >= since

    def _end(self, stopped: bool) -> None:
        if not self.finished:
            self.finished, self.stopped, self.turn = True, stopped, None
            self._save()

    def _save(self) -> None:
        self.warning = progress.record_interview(self.key, self.record()) or self.warning

    @property
    def key(self) -> str:
        """What the report is kept under: when the interview began."""
        return self.began.isoformat(timespec="seconds")

    def record(self) -> dict[str, Any]:
        """The report as it is kept."""
        return {
            "when": progress.now().isoformat(timespec="seconds"),
            "role": self.role.name,
            "minutes": self.minutes,
            "language": self.language,
            "seed": self.seed,
            "used_s": round(60 * self.minutes - self.left_s),
            "finished": self.finished and not self.stopped,
            "unreached": self.unreached if self.finished else 0,
            "turns": [note.record() for note in self.notes],
        }

    # The clock

    def _spent_s(self, since: datetime) -> float:
        return max(0.0, (progress.now() - since).total_seconds())

    @property
    def left_s(self) -> float:
        """Seconds that are left of the interview."""
        return 60 * self.minutes - self._spent_s(self.began) + self._waited_s

    @property
    def notes(self) -> list[Note]:
        """What came of the turns so far."""
        return self._script.notes

    @property
    def place(self) -> int:
        """That of the round that goes on, from 0."""
        return self._script.place

    @property
    def unreached(self) -> int:
        """Rounds that were not reached."""
        return len(self.rounds) - 1 - self.place

    @property
    def where(self) -> str:
        """The round that is going on, its number and its minutes."""
        part = self.rounds[self.place]
        about = {"number": self.place + 1, "count": len(self.rounds), "minutes": part.minutes}
        return self.say("part", round=self.say(f"round.{part.kind}"), **about)

    def say(self, key: str, **values: Any) -> str:
        """A text of this interview in its language."""
        return say(f"mock.{key}", self.language, **values)
