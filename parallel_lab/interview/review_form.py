"""`review()` in a cell: asks what is due today, one after the other, and keeps how well it was known."""

from collections.abc import Callable
from functools import partial
from typing import Any

from parallel_lab.course import events, forms, page
from parallel_lab.course.asked import Choice
from parallel_lab.interview.asking import CONFIDENCES, RATINGS, Asking, Judged, again_on
from parallel_lab.interview.proofs import evidence
from parallel_lab.interview.sessions import Session, saved, session
from parallel_lab.interview.words import lang, say


class Review(page.Shown):
    """What is due today, ready to be answered in a cell; see `review`."""

    def __init__(self, one: Session) -> None:
        self.session = one

    def form(self) -> Any:
        """The widgets: the question with its input, below it what was said, and the way on."""
        one, language = self.session, self.session.language
        place, bar = forms.box(), forms.box(side_by_side=True)
        head = forms.parts(one.beginning(), style=True)

        def end() -> None:
            place.children, bar.children = (forms.html(forms.status(one.end())),), ()

        def show(asking: Asking | None, said: str = "") -> None:
            if asking is None:
                return end()
            place.children = (*_small(said, language), *Sheet(asking, one.count).widgets())
            return None

        def ask() -> None:
            skipped = say("review.skipped", language) if one.open else ""
            show(one.next(), skipped)

        bar.children = (
            forms.button(say("common.next", language), say("common.next", language), ask),
            forms.button(say("review.stop", language), say("review.stop", language), end),
        )
        show(one.open or one.next())
        return forms.box(head, place, bar)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """What it is, and where to answer; the same whatever is due."""
        language, name = self.session.language, lang(self.session.language)
        title = say("review.title", language)
        words = page.paragraph(say("review.where", language), lang=name)
        return page.Page(title, [page.paragraph(title, "head", name), words])


class Sheet:
    """The widgets of one question."""

    def __init__(self, asking: Asking, count: str) -> None:
        self.asking, self.count, self.language = asking, count, asking.language
        self.asked, self.inputs, self.below = forms.html(), forms.box(), forms.box()

    def widgets(self) -> tuple[Any, ...]:
        """The question, the input, and room for the answer."""
        self._ask()
        return self.asked, self.inputs, self.below

    def _ask(self) -> None:
        title = self._say("title")
        self.asked.value = forms.status(page.Page(title, [page.paragraph(self.count, "small"), *self.asking.question]))
        words = [f"{share:.0%}" for share in CONFIDENCES]
        self.sure = forms.radio(words, words, self._say("sure"), side_by_side=True)
        about = self._line("sure")
        self.inputs.children = (about, self.sure, *self._judged())

    def _judged(self) -> list[Any]:
        """The input of what a machine judges, and the buttons."""
        one, show = self.asking.judged, self._button("common.show", self._reveal)
        if one is None:
            return [self._line("aloud"), forms.box(show, *self._fresh(), side_by_side=True)]
        self.field = _input(one, self.language)
        forms.on_enter(self.field, self._check)
        check = self._button("common.check", self._check)
        return [self.field, forms.box(check, show, *self._fresh(), side_by_side=True)]

    def _fresh(self) -> list[Any]:
        """A button that asks the same with the numbers of a drill."""

        def change() -> None:
            self.asking.as_drill()
            self.below.children = ()
            self._ask()

        return [self._button("review.fresh", change)] if self.asking.drills else []

    def _check(self) -> None:
        self._note_confidence()
        right, said = self.asking.answer(self.field.value)
        key = "common.right" if right else "common.not-yet"
        verdict = page.verdict(right, say(key, self.language), said)
        if self.asking.rating is None:
            self.below.children = (forms.html(forms.status(verdict)),)
        else:
            self._answered(verdict)

    def _reveal(self) -> None:
        self._note_confidence()
        if self.asking.judged is not None:
            self.asking.give_up()
            self._answered(None)
            return
        rates = [self._button(f"review.rate-{rating}", partial(self._rate, rating)) for rating in RATINGS]
        self.inputs.children = ()
        self.below.children = (*self._solution(), self._line("judge-yourself"), forms.box(*rates, side_by_side=True))

    def _rate(self, rating: int) -> None:
        self.asking.rate(rating)
        self._answered(None)

    def _answered(self, verdict: page.Page | None) -> None:
        """The verdict, the answer, and when it is asked again."""
        self.inputs.children = ()
        said = " ".join(filter(None, [again_on(self.asking), saved(self.asking)]))
        look = "good" if (self.asking.rating or 0) >= events.HARD else "note"
        parts = [*(verdict.parts if verdict else ()), page.paragraph(said, lang=lang(self.language))]
        self.below.children = (forms.html(forms.status(page.Page(said, parts, look))), *self._solution())

    def _solution(self) -> list[Any]:
        """The answer, and a button that runs the cell that measures it."""
        shown = forms.html(page.Page(say("common.answer", self.language), self.asking.solution()).section)
        key = self.asking.item.key
        if self.asking.drawn or self.asking.item.kind in ("quiz", "term"):
            return [shown]
        place = forms.html()

        def run() -> None:
            def told(line: str) -> None:
                place.value = forms.status(page.Page(line, [page.paragraph(line)], "note"))

            try:
                place.value = evidence(key, self.language, told).as_page().section
            except (OSError, ValueError) as error:  # the chapter is not there
                told(str(error))

        return [shown, self._button("review.run", run), place]

    def _note_confidence(self) -> None:
        """Keeps the confidence of the first answer; what is said after a wrong one counts no more."""
        if self.sure.value and not self.asking.failed and self.asking.rating is None:
            self.asking.confidence = float(self.sure.value.rstrip("%")) / 100

    def _button(self, key: str, clicked: Callable[[], None]) -> Any:
        words = say(key, self.language)
        return forms.button(words, words, clicked)

    def _line(self, key: str) -> Any:
        return forms.html(page.paragraph(self._say(key), lang=lang(self.language), tag="div").html)

    def _say(self, key: str) -> str:
        return say(f"review.{key}", self.language)


def _small(said: str, language: str) -> list[Any]:
    return [forms.html(page.paragraph(said, "small", lang(language)).html)] if said else []


def _input(one: Judged, language: str) -> Any:
    """The widget to answer with, its words in `language`."""
    words = say("common.answer", language)
    if isinstance(one, Choice):
        return one.input(words)
    return forms.text(f"{words} {one.unit}".strip(), "", words)


def review(
    language: str | None = None,
    *,
    answer_in: str | None = None,
    chapter: str | None = None,
    minutes: float | None = None,
) -> Review:
    """Asks what is due today, and what is new, in a cell.

    Args:
        language: of the questions, `en` or `zh`; without, that of PARALLEL_LAB_LANGUAGE, else English.
        answer_in: the language of the answers, if it is to be another one.
        chapter: only what belongs to it, as `"09"`.
        minutes: what there is time for.

    Raises:
        ValueError: there is no such language, no such chapter, or no time at all.
    """
    return Review(session(language, answer_in, chapter, minutes))
