"""Drills: `drill("ring-bytes")` asks a problem with fresh numbers at every call, and derives the answer.

`drill(chapter="09")` picks one of a chapter's: one that was never solved, else the one solved longest ago.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from parallel_lab.course import forms, page, progress
from parallel_lab.course.asked import Number, reads
from parallel_lab.course.drills import listed, problems
from parallel_lab.course.drills.chinese import spoken_in
from parallel_lab.course.drills.engine import Drawn, Problem
from parallel_lab.course.spoken import hint, in_unit, lang, language_of, say, title_in, unit_in
from parallel_lab.course.typed import named


@dataclass
class Attempt:
    """One problem with its numbers, from the question to the right answer or to the solution.

    Attributes:
        failed: How many wrong numbers were given.
        solved: The right number was given before the solution was shown.
        seen: The solution was shown before the right number was given.
    """

    name: str
    drawn: Drawn
    language: str = "en"
    failed: int = 0
    solved: bool = False
    seen: bool = False

    def answer(self, given: str | None) -> tuple[bool, str]:
        """Whether the text `given` is right, and what a wrong number hints at; keeps what is right in the progress."""
        one, warning = asked(self.drawn), ""
        right, said = one.feedback(given)
        said = hint(said, self.language)
        if self.solved or self.seen:
            return right, said
        if reads(one, given):  # what is no number is no wrong answer
            self.solved, self.failed = right, self.failed + (not right)
            warning = progress.record_drill(self.name, right)
        return right, f"{said} {warning}".strip()

    def give_up(self) -> list[page.Part]:
        """The solution; asked for before the right number, it is kept as a failure, and no number counts after it."""
        if self.solved or self.seen:
            return solution(self.drawn, self.language)
        self.seen, warning = True, progress.record_drill(self.name, right=False)
        return [*solution(self.drawn, self.language), *([page.paragraph(warning)] if warning else [])]


@dataclass(frozen=True, repr=False)
class Drill(page.Shown):
    """A problem that draws its numbers, ready to be shown in a cell; see `drill`."""

    problem: Problem
    dice: Random = field(default_factory=Random)
    language: str = "en"

    def draw(self, dice: Random | None = None) -> Drawn:
        """The problem with the next numbers, or with those of `dice`."""
        return spoken_in(self.language, self.problem.name, self.problem.draw(dice or self.dice))

    def attempt(self) -> Attempt:
        """The problem with the next numbers, to be answered."""
        return Attempt(self.problem.name, self.draw(), self.language)

    def form(self) -> Any:
        """The widgets: the problem, an input, and buttons to check, to see the solution, to draw other numbers."""
        name, tongue, place = self.problem.name, self.language, forms.box()

        def ask() -> None:
            tried, below = self.attempt(), forms.html()

            def show() -> None:
                below.value = forms.status(page.Page(say("solution", tongue), tried.give_up(), "note"))

            see = forms.button(say("show", tongue), say("show-to", tongue, name=name), show)
            again = forms.button(say("again", tongue), say("again-to", tongue, name=name), ask)
            place.children = [answer_row(tried), forms.box(see, again, side_by_side=True), below]

        ask()
        return forms.box(forms.parts([self._head()], style=True), place)

    def _head(self) -> page.Part:
        title = title_in(self.problem.name, self.problem.title, self.language)
        return self._line(say("drill", self.language, title=title), "head")

    def _line(self, text: str, kind: str = "") -> page.Part:
        return page.paragraph(text, kind, lang(self.language))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """One draw of the problem, the same at every call, and where to answer it with fresh numbers."""
        name = self.problem.name
        where = self._line(say("where", self.language, name=name), "small")
        sample = self._line(in_unit(self.draw(Random(name)), self.language))
        example = self._line(say("example", self.language), "small")
        return page.Page(f"Drill {name}", [self._head(), example, sample, where])


def answer_row(tried: Attempt, judge: Callable[[str | None], tuple[bool, str]] | None = None) -> Any:
    """The widgets of one problem: the question, an input and a button; below, what is said, with the way to it.

    Args:
        tried: the problem with its numbers.
        judge: says whether what was typed is right, and why not; without it, the attempt itself.
    """
    drawn, name, tongue = tried.drawn, tried.name, tried.language

    def check(given: str | None) -> page.Page:
        right, said = (judge or tried.answer)(given)
        shown = page.verdict(right, say("right" if right else "not-yet", tongue), said)
        return shown._replace(parts=[*shown.parts, *(solution(drawn, tongue) if right else ())])

    words = say("answer", tongue, unit=unit_in(drawn.unit, tongue)).strip()
    field = forms.text(words, say("a-number", tongue), say("answer-to", tongue, name=name))
    question = [page.paragraph(in_unit(drawn, tongue), lang=lang(tongue))]
    return forms.row(question, field, say("check", tongue), say("check-to", tongue, name=name), check)


def asked(drawn: Drawn) -> Number:
    """The problem as a question for a number."""
    return Number(drawn.question, drawn.answer, drawn.unit, drawn.tolerance, wrong=drawn.wrong)


def solution(drawn: Drawn, language: str = "en") -> list[page.Part]:
    """The derivation, step by step."""
    steps = page.markdown("\n".join(f"{n}. {step}" for n, step in enumerate(drawn.steps, 1)))
    return [steps if language == "en" else page.Part(f'<div lang="{lang(language)}">{steps.html}</div>', steps.text)]


def drill(
    name: str | None = None, seed: int | None = None, *, chapter: str | None = None, language: str | None = None
) -> Drill:
    """A problem to solve with pen and paper, with fresh numbers at every call.

    Args:
        name: as `"ring-bytes"`; without it, the drill that is next: never solved, or solved longest ago.
        seed: the same numbers for the same seed; fresh ones without.
        chapter: one of this chapter's drills, as `"09"`.
        language: `en` or `zh`; without it, that of the environment variable PARALLEL_LAB_LANGUAGE, else English.

    Raises:
        UnknownName: there is no such drill or chapter; this KeyError names the nearest ones.
        ValueError: the drill is of another chapter, or there is no such language.
    """
    dice, choices, tongue = Random(seed), names_of(chapter), language_of(language)
    if name is None:
        name = in_turn(choices, dice)[0]
    one = named("drill", name, problems())
    if name not in choices:
        raise ValueError(f"drill {name} is one of chapter {one.chapter}; chapter {chapter} has {', '.join(choices)}")
    return Drill(one, dice, tongue)


def names_of(chapter: str | None) -> list[str]:
    """The drills of a chapter, given as `"09"`, 9 or `"09_pipeline_parallel"`, or of all where it is None.

    Raises:
        UnknownName: no chapter of this number has drills.
    """
    if chapter is None:
        return list(listed())
    number = str(chapter).zfill(2)[:2]
    named("chapter with drills", number, dict.fromkeys(listed().values()))
    return [name for name, its in listed().items() if its == number]


def in_turn(names: Iterable[str], dice: Random) -> list[str]:
    """The drills `names` in the order in which they are asked: never solved, then solved longest ago; else shuffled."""
    kept = progress.read()["drills"]
    shuffled = dice.sample(list(names), len(list(names)))
    return sorted(shuffled, key=lambda name: kept.get(name, {}).get("when", ""))
