"""`debugging_round()`: a job with a hidden fault, in a cell; and an area in which it is mended."""

from dataclasses import dataclass
from typing import Any

from parallel_lab.clinic import case_of
from parallel_lab.course import forms, page
from parallel_lab.interview.board import sentence
from parallel_lab.interview.coding import function_from
from parallel_lab.interview.debugging import MINUTES, Round, begin, check_minutes, program
from parallel_lab.interview.judged import chart_parts
from parallel_lab.interview.words import VOICES, from_english, lang, language_of, say, words
from parallel_lab.view.clock import WORDS as CLOCK_WORDS
from parallel_lab.view.clock import Clock


@dataclass(frozen=True, repr=False)
class DebuggingRound(page.Shown):
    """A round, ready to be shown in a cell; its clock starts on a click. See `debugging_round`."""

    minutes: float = MINUTES
    number: int | None = None
    seed: int | None = None
    language: str = "en"

    def form(self) -> Any:
        """The widgets: a button that starts; then the chart, the causes, the area to mend the job in."""
        place, own = forms.box(), self.language

        def start() -> None:
            button.disabled = True
            place.children = [forms.html(forms.status(_note("debugging.running", own)))]
            of = begin(self.minutes, number=self.number, seed=self.seed, language=own)
            place.children = _Sheet(of).widgets()

        button = forms.button(say("debugging.start", own), say("debugging.start-tip", own), start)
        return forms.box(forms.parts(self._head(), style=True), button, place)

    def _head(self) -> list[page.Part]:
        own = self.language
        rules = say("debugging.rules", own, minutes=f"{self.minutes:g}")
        return [page.paragraph(say("debugging.title", own), "head", lang(own)), page.paragraph(rules, lang=lang(own))]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """The rules, and where a round is held."""
        own = self.language
        where = page.paragraph(say("common.where", own, command="plab clinic --round"), "small", lang(own))
        return page.Page(say("debugging.title", own), [*self._head(), where])


class _Sheet:
    """The widgets of a round under way."""

    def __init__(self, of: Round) -> None:
        self.round, self.own = of, of.language
        self.said, self.time = forms.html(), forms.html()
        texts = {key: words()[f"clock.{key}"][self.own] for key in CLOCK_WORDS} | {"left": self._say("clock")}
        self.clock = Clock(language=VOICES[self.own], words=texts)
        self.clock.set(of.left_s)

    def widgets(self) -> list[Any]:
        """What is shown, then what is asked, then what is said."""
        parts = [sentence("debugging.english", self.own), *chart_parts(self.round.opened, self.own)]
        shown = page.Page(self._say("title"), parts)
        self._tell()
        return [self.clock, forms.html(shown.section), self.time, *self._cause(), *self._job(), self.said]

    def _cause(self) -> list[Any]:
        values = [str(place) for place in range(len(self.round.options))]
        self.picked = forms.radio(self.round.words, values, self._say("ask"))
        asked = forms.html(sentence("debugging.ask", self.own).html)

        def name() -> None:
            if self.picked.value is None:
                self._show(_note("review.no-option", self.own))
            else:
                self._show(self.round.name(int(self.picked.value)))

        return [asked, self.picked, self._button("name", name)]

    def _job(self) -> list[Any]:
        lines = program(self.round.case)
        self.area = forms.area("job", "", self._say("mend-ask"), lines, min(30, lines.count("\n") + 1))

        def mend() -> None:
            self._show(_note("debugging.running", self.own))
            try:
                job = function_from(self.area.value, self.round.case.job.__name__)
            except ValueError as wrong:
                said = page.paragraph(from_english(str(wrong), self.own), lang=lang(self.own))
                self._show(page.Page("", [said], "bad"))
                return
            if job is None:
                self._show(_note("debugging.no-job", self.own))
            else:
                self._show(self.round.mend(job))

        buttons = forms.box(self._button("mend", mend), self._button("end", self._end), side_by_side=True)
        return [forms.html(sentence("debugging.mend-ask", self.own).html), self.area, buttons]

    def _end(self) -> None:
        self._show(self.round.finish())
        self.clock.stop()
        self.picked.disabled = self.area.disabled = True

    def _show(self, said: page.Page) -> None:
        self.said.value = forms.status(said)
        self._tell()

    def _tell(self) -> None:
        self.time.value = page.paragraph(self.round.clock, "small", lang(self.own)).html

    def _button(self, key: str, clicked: Any) -> Any:
        return forms.button(self._say(key), self._say(f"{key}-tip"), clicked)

    def _say(self, key: str) -> str:
        return say(f"debugging.{key}", self.own)


def _note(key: str, language: str) -> page.Page:
    return page.Page(say(key, language), [sentence(key, language)], "note")


def debugging_round(
    minutes: float = MINUTES, *, number: int | None = None, seed: int | None = None, language: str | None = None
) -> DebuggingRound:
    """A debugging round: a job with a hidden fault runs on real ranks; name its cause and mend it, against a clock.

    Args:
        minutes: how long it is meant to take.
        number: of a case of the clinic, to practice this one; one that was not met, or is due, without.
        seed: the same case for the same seed and progress.
        language: `en` or `zh`; that of the environment by default.

    Raises:
        ValueError: the minutes are none, or there is no such case or language.
    """
    own = language_of(language)
    check_minutes(minutes, own)
    if number is not None:
        case_of(number)
    return DebuggingRound(minutes, number, seed, own)
