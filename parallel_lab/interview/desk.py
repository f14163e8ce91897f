"""`mock_interview()`: the interview at one's own desk, as a widget with a clock; where no widgets run, a page.

The state of the interview is `mock.Mock`; this file shows it and takes what is typed.
"""

from dataclasses import dataclass
from typing import Any

from parallel_lab.course import forms, page
from parallel_lab.interview import report as reports
from parallel_lab.interview.mock import Mock
from parallel_lab.interview.noted import Interviewer
from parallel_lab.interview.roles import form_of, role_named, roles
from parallel_lab.interview.roles import forms as lengths
from parallel_lab.interview.turn_form import TurnForm
from parallel_lab.interview.words import LANGUAGES, VOICES, lang, language_of, say, words
from parallel_lab.view.clock import WORDS as CLOCK_WORDS
from parallel_lab.view.clock import Clock

NAMES = {"en": "English", "zh": "中文"}


@dataclass(repr=False)
class Desk(page.Shown):
    """An interview that can be taken in a cell; see `mock_interview`."""

    role: str
    minutes: int
    language: str
    seed: int | None = None
    interviewer: Interviewer | None = None

    def __post_init__(self) -> None:
        self.interview: Mock | None = None
        self.clock: Any = None
        self.place: Any = None

    def say(self, key: str, **values: Any) -> str:
        """A text in the language that is chosen."""
        return say(f"mock.{key}", self.language, **values)

    # Before it begins

    def form(self) -> Any:
        """The widgets: what to choose, and a button to begin; the interview takes their place."""
        self.place = forms.box()
        self._choose()
        return forms.box(forms.html(page.STYLE), self.place)

    def _choose(self) -> None:
        """Role, length and language. Another language says the choices anew."""
        titles = [one.title[self.language] for one in roles().values()]
        role = forms.dropdown(self.say("role"), titles, list(roles()), self.say("role"), self.role)
        minutes = forms.dropdown(self.say("minutes"), list(map(str, lengths())), list(lengths()), "", self.minutes)
        tongue = forms.dropdown(self.say("language"), list(NAMES.values()), list(LANGUAGES), "", self.language)
        about = forms.html()

        def told(_: Any = None) -> None:
            self.role, self.minutes = role.value, minutes.value
            about.value = forms.status(page.Page(self.say("title"), self._about(), "note"))

        def spoken(change: Any) -> None:
            told()
            self.language = change["new"]
            self._choose()

        for field in (role, minutes):
            field.observe(told, "value")
        tongue.observe(spoken, "value")
        told()
        begin = forms.button(self.say("begin"), self.say("begin"), self.begin)
        self.place.children = [forms.box(role, minutes, tongue, side_by_side=True), about, begin]

    def _about(self) -> list[page.Part]:
        kinds = say("schedule.list", self.language).join(
            self.say(f"round.{part.kind}") for part in form_of(self.minutes)
        )
        head = self._line("title", "head")
        return [head, self._line("about", minutes=self.minutes, rounds=kinds), self._line("setup", "small")]

    def _line(self, key: str, kind: str = "", **values: Any) -> page.Part:
        return page.paragraph(self.say(key, **values), kind, lang(self.language))

    def begin(self) -> None:
        """Begins: the clock runs."""
        self.interview = Mock(
            self.role, self.minutes, self.language, seed=self.seed, interviewer=self.interviewer, told=self._wait
        )
        texts = {key: words()[f"clock.{key}"][self.language] for key in CLOCK_WORDS}
        self.clock = Clock(language=VOICES[self.language], words=texts)
        self.clock.observe(lambda change: self._late() if change["new"] else None, "over")
        self._show()

    def _wait(self, words: str) -> None:
        """Says that something runs, while it does."""
        shown = forms.html(forms.status(page.Page("…", [page.paragraph(words, lang=lang(self.language))], "note")))
        self.place.children = [*self.place.children, shown]

    # While it goes on

    def _show(self) -> None:
        """The turn that is asked, or the report."""
        interview = self.interview
        if interview is None or (turn := interview.turn) is None:
            self._report()
            return
        stop = forms.button(self.say("stop"), self.say("stop"), self.stop)
        form = TurnForm(interview, turn, self.clock, self._show)
        self.place.children = [self.clock, *self._warned(), *form.widgets(stop)]
        self.clock.set(interview.left_s, speak_s=turn.speak_s, text=turn.spoken, fresh=True)

    def _warned(self) -> list[Any]:
        """What went wrong with keeping the progress, or what was left out."""
        interview = self.interview
        if interview is None or not interview.warning:
            return []
        said, interview.warning = interview.warning, ""
        return [forms.html(forms.status(page.Page("!", [page.paragraph(said)], "bad")))]

    # When it is over

    def stop(self) -> None:
        """Ends the interview; what was answered is kept."""
        if self.interview:
            self.interview.stop()
            self._report()

    def _late(self) -> None:
        """The clock has run out: the answer that is being given may be finished, and then the report comes."""
        said = forms.html(forms.status(page.Page("", [page.paragraph(say("clock.over", self.language))], "bad")))
        if self.interview and self.interview.turn:
            self.place.children = [*self.place.children, said]

    def _report(self) -> None:
        self.clock.stop()
        interview = self.interview
        assert interview
        unreached = interview.unreached
        over = "stopped" if interview.stopped else "time-up" if unreached else "over"
        lines = [self._line(over, count=unreached) if over == "time-up" else self._line(over)]
        if interview.warning:
            lines.append(page.paragraph(interview.warning))
        shown = [forms.html(forms.status(page.Page(self.say("title"), lines, "note")))]
        if interview.notes:
            shown.append(forms.html(reports.report(interview.key, self.language).as_page().section))
        self.place.children = shown

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """What an interview is made of, and where it can be taken."""
        return page.Page(self.say("title"), [*self._about()[:2], self._line("where", "small")])


def mock_interview(
    role: str = "infrastructure",
    minutes: int = 15,
    language: str | None = None,
    *,
    seed: int | None = None,
    interviewer: Interviewer | None = None,
) -> Desk:
    """A mock interview in a cell: questions with follow-ups, a number, a log, a coding task, a clock, and a report.

    Args:
        role: `infrastructure`, `researcher` or `lead`; it can be chosen in the cell as well.
        minutes: 15, 30, 45 or 60.
        language: `en` or `zh`; by default that of the environment.
        seed: the same questions for the same seed and the same progress.
        interviewer: a function of a turn and of what was typed that returns an `Opinion`, or None. There is none by
            default, and nothing leaves the machine.

    Raises:
        UnknownName: there is no such role.
        ValueError: there is no interview of this length, or no such language.
    """
    role_named(role)
    form_of(minutes)
    return Desk(role, minutes, language_of(language), seed, interviewer)
