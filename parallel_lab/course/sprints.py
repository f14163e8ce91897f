"""`sprint(minutes=10)`: drills one after the other until the time is over, and a score at the end, which is kept.

A problem solved at once counts 1, one solved after a wrong answer a half, one that was skipped nothing. An answer that
comes after the time counts nothing. The report is written after every problem, so that one who stops loses nothing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from parallel_lab.course import forms, page, progress
from parallel_lab.course.drills import problems
from parallel_lab.course.practice import Attempt, Drill, answer_row, in_turn, names_of
from parallel_lab.course.spoken import lang, language_of, say
from parallel_lab.view import clock as view_clock


@dataclass
class Race:
    """A sprint that is being run: the clock, and what was asked.

    Attributes:
        clock: Seconds that only grow.
    """

    minutes: float
    chapter: str | None = None
    dice: Random = field(default_factory=Random)
    clock: Callable[[], float] = time.monotonic
    language: str = "en"
    tried: list[Attempt] = field(default_factory=list)
    warning: str = ""

    def __post_init__(self) -> None:
        self.began_s, self.key = self.clock(), progress.now().isoformat(timespec="milliseconds")
        self._names = _endless(names_of(self.chapter), self.dice)
        self.before = best(self.minutes, self.chapter)

    @property
    def left_s(self) -> float:
        """The seconds that are left; 0 where the time is over."""
        return max(0.0, 60 * self.minutes - (self.clock() - self.began_s))

    def ask(self) -> Attempt | None:
        """The next problem; None where the time is over."""
        self.keep()
        if not self.left_s:
            return None
        self.tried.append(Drill(problems()[next(self._names)], self.dice, self.language).attempt())
        return self.tried[-1]

    def answer(self, given: str | None) -> tuple[bool, str]:
        """Feedback for an answer to the problem that was asked last; too late, it counts nothing."""
        one = self.tried[-1]
        if not self.left_s:
            one.seen = not one.solved
            return False, say("late", self.language)
        right, said = one.answer(given)
        self.keep()
        return right, said

    @property
    def score(self) -> float:
        """1 for each problem solved at once, a half for each solved after a wrong answer."""
        return sum(0.5 if one.failed else 1.0 for one in self.tried if one.solved)

    def keep(self) -> None:
        """Writes down how the sprint stands, once something was answered."""
        if done := [one for one in self.tried if one.solved or one.seen or one.failed]:
            solved = {one.name: 0.5 if one.failed else 1.0 for one in done if one.solved}
            missed = [one.name for one in done if not one.solved]
            about = {"minutes": self.minutes, "chapter": self.chapter, "score": self.score, "asked": len(done)}
            self.warning = progress.record_sprint(self.key, about | {"solved": solved, "missed": missed})

    def report(self) -> page.Page:
        """The score, the best one before, and what to do again."""
        self.keep()
        lines = [page.paragraph(line, lang=lang(self.language)) for line in self._lines()]
        return page.Page(say("sprint-title", self.language), lines, "note")

    def _lines(self) -> Iterator[str]:
        solved, told = [one for one in self.tried if one.solved], self.language
        at_once = sum(not one.failed for one in solved)
        if not self.left_s:
            yield say("time-over", told)
        yield say("report", told, score=f"{self.score:g}", at_once=at_once, later=len(solved) - at_once)
        if self.before is not None:
            yield say("before", told, length=_length(self.minutes, self.chapter, told), best=f"{self.before:g}")
        if again := list(dict.fromkeys(one.name for one in self.tried if one.failed or one.seen)):
            yield say("do-again", told, names=", ".join(again))
        if self.warning:
            yield self.warning


def _endless(names: list[str], dice: Random) -> Iterator[str]:
    """The drills in their turn, and again from the start, each time with fresh numbers."""
    while True:
        yield from in_turn(names, dice)


def best(minutes: float, chapter: str | None) -> float | None:
    """The best score of a sprint of this length over these drills; None where there was none."""
    kept = progress.read()["sprints"].values()
    same = [one["score"] for one in kept if (one["minutes"], one["chapter"]) == (minutes, chapter)]
    return max(same, default=None)


def _length(minutes: float, chapter: str | None, language: str) -> str:
    length = say("length-1", language) if minutes == 1 else say("length", language, minutes=f"{minutes:g}")
    return say("over-chapter", language, length=length, chapter=chapter) if chapter else length


@dataclass(frozen=True, repr=False)
class Sprint(page.Shown):
    """Drills against the clock, ready to be shown in a cell; see `sprint`."""

    minutes: float
    chapter: str | None = None
    dice: Random = field(default_factory=Random)
    clock: Callable[[], float] = time.monotonic
    language: str = "en"

    def start(self) -> Race:
        """Starts the clock."""
        return Race(self.minutes, self.chapter, self.dice, self.clock, self.language)

    def form(self) -> Any:
        """The widgets: a button that starts the clock, then one problem after the other, then the score."""
        place = forms.box()

        def begin() -> None:
            _Course(self.start(), place, begin)

        words = say("start", self.language, length=self._length)
        place.children = [forms.button(words, say("start-to", self.language), begin)]
        return forms.box(forms.parts(self._head(), style=True), place)

    @property
    def _length(self) -> str:
        return _length(self.minutes, self.chapter, self.language)

    def _head(self) -> list[page.Part]:
        lines = ((say("sprint", self.language, length=self._length), "head"), (say("rule", self.language), ""))
        return [page.paragraph(line, kind, lang(self.language)) for line, kind in lines]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """What a sprint is, and where to run one."""
        about = f" --chapter {self.chapter}" if self.chapter else ""
        where = say("sprint-where", self.language, minutes=f"{self.minutes:g}", chapter=about)
        return page.Page("Sprint", [*self._head(), page.paragraph(where, "small", lang(self.language))])


class _Course:
    """The widgets of one sprint in `place`: the clock, the problem, and the score at the end."""

    def __init__(self, race: Race, place: Any, begin: Callable[[], None]) -> None:
        self.race, self.place, self.begin, self.language = race, place, begin, race.language
        words = {key: say(f"clock.{key}", self.language) for key in ("left", "over")}
        words["minutes"] = say("clock.minutes", self.language, minutes="{minutes}")
        self.clock = view_clock.Clock(words=view_clock.WORDS | words)
        self.clock.observe(lambda change: self.end() if change["new"] else None, "over")
        self.ask()

    def ask(self) -> None:
        """The next problem, or the score where the time is over."""
        one = self.race.ask()
        if one is None:
            self.end()
            return

        def on() -> None:
            one.give_up()
            self.ask()

        self.clock.set(self.race.left_s)
        score = forms.html(page.paragraph(self._say("score", score=f"{self.race.score:g}"), "small").html)
        onward = forms.button(self._say("next"), self._say("next-to"), on)
        stop = forms.button(self._say("stop"), self._say("stop-to"), self.end)
        buttons = forms.box(onward, stop, side_by_side=True)
        self.place.children = [self.clock, score, answer_row(one, self.race.answer), buttons]

    def end(self) -> None:
        """The score, once."""
        if self.clock.running:
            self.clock.stop()
            again = forms.button(self._say("another"), self._say("another-to"), self.begin)
            self.place.children = [forms.html(forms.status(self.race.report())), again]

    def _say(self, key: str, **values: Any) -> str:
        return say(key, self.language, **values)


def sprint(
    minutes: float = 10, chapter: str | None = None, seed: int | None = None, *, language: str | None = None
) -> Sprint:
    """Drills one after the other against the clock, and a score at the end, which is kept with your progress.

    Args:
        minutes: how long.
        chapter: the drills of this chapter alone, as `"09"`; without it, those of all chapters.
        seed: the same problems for the same seed; fresh ones without.
        language: `en` or `zh`; without it, that of the environment variable PARALLEL_LAB_LANGUAGE, else English.

    Raises:
        UnknownName: no chapter of this number has drills; this KeyError names the nearest ones.
        ValueError: the time is not between 1 and 120 minutes, or there is no such language.
    """
    if not 1 <= minutes <= 120:
        raise ValueError(f"a sprint takes 1 to 120 minutes, and {minutes:g} is not between them")
    number = None if chapter is None else problems()[names_of(chapter)[0]].chapter
    return Sprint(minutes, number, Random(seed), language=language_of(language))
