"""`mock_interview()`: the interview at one's own desk, as a widget with a clock; where no widgets run, a page.

The state of the interview is `mock.Mock`; this file shows it and takes what is typed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from parallel_lab.course import forms, page
from parallel_lab.interview import report as reports
from parallel_lab.interview.mock import Interviewer, Mock
from parallel_lab.interview.roles import form_of, role_named, roles
from parallel_lab.interview.roles import forms as lengths
from parallel_lab.interview.rounds import WORDS, Turn
from parallel_lab.interview.words import LANGUAGES, lang, language_of, say
from parallel_lab.view.clock import WORDS as CLOCK_WORDS
from parallel_lab.view.clock import Clock

TONGUES = {"en": "en-US", "zh": "zh-CN"}
NAMES = {"en": "English", "zh": "中文"}
SURE = (0.25, 0.5, 0.7, 0.9, 0.99)
SHOWN_TOPICS = 4  # of a role, on the page without widgets


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
        self._follow = 0
        self._part = -1

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
        head = page.paragraph(self.say("title"), "head", lang(self.language))
        words = self.say("about", minutes=self.minutes, rounds=kinds)
        return [head, page.paragraph(words, lang=lang(self.language)), self._line("setup", "small")]

    def _line(self, key: str, kind: str = "", **values: Any) -> page.Part:
        return page.paragraph(self.say(key, **values), kind, lang(self.language))

    def begin(self) -> None:
        """Begins: the clock runs."""
        self.interview = Mock(
            self.role, self.minutes, self.language, seed=self.seed, interviewer=self.interviewer, told=self._wait
        )
        words = {key: _raw(key, self.language) for key in CLOCK_WORDS}
        self.clock = Clock(language=TONGUES[self.language], words=words)
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
        self._count(turn)
        self.clock.set(interview.left_s, speak_s=turn.speak_s, text=turn.spoken)
        asked = page.Page(self.say("title"), [*self._head(turn), page.markdown(turn.ask), *turn.shown])
        below = forms.box()
        field, answer = self._field(turn)
        sure = self._sure()
        stop = forms.button(self.say("stop"), self.say("stop"), self.stop)
        give = partial(self._answer, turn, answer, sure, below)
        words = {"speak": "answered", "code": "check-code"}.get(turn.kind)
        check = self.say(words) if words else say("common.check", self.language)
        row = [forms.button(check, check, give)]
        if turn.kind == "code":
            row.append(forms.button(self.say("mine"), self.say("mine"), partial(self._mine, turn, sure, below)))
        if turn.kind != "speak":
            row.append(forms.button(self.say("give-up"), self.say("give-up"), partial(self._reveal, below)))
        buttons = forms.box(*row, stop, side_by_side=True)
        parts = (self.clock, self._warned(), forms.html(forms.status(asked)), sure, field, buttons, below)
        self.place.children = [one for one in parts if one is not None]

    def _warned(self) -> Any:
        """What went wrong with keeping the progress, or what was left out; None where nothing did."""
        interview = self.interview
        if interview is None or not interview.warning:
            return None
        said, interview.warning = interview.warning, ""
        return forms.html(forms.status(page.Page("!", [page.paragraph(said)], "bad")))

    def _count(self, turn: Turn) -> None:
        """Counts the follow-ups of a round."""
        place = self.interview.place if self.interview else 0
        self._follow = 0 if place != self._part else self._follow + 1
        self._part = place

    def _head(self, turn: Turn) -> list[page.Part]:
        interview = self.interview
        assert interview
        kind, count = self.say(f"round.{turn.part}"), len(interview.rounds)
        where = {"number": interview.place + 1, "count": count, "minutes": interview.part.minutes}
        lines = [self._line("part", "small", round=kind, **where)]
        if self._follow and turn.card:
            lines.append(self._line("follow-up-missed" if turn.missed else "follow-up", "small", number=self._follow))
        if turn.kind == "speak":
            words = {"seconds": turn.speak_s, "count": WORDS[turn.speak_s][self.language]}
            lines.append(self._line("speak", "small", **words))
        return lines

    def _field(self, turn: Turn) -> tuple[Any, Callable[[], str]]:
        """What to answer with, and what gives the text in it."""
        if turn.kind == "choice":
            letters = "abcdefgh"[: len(turn.options)]
            lines = [f"{letter}) {option}" for letter, option in zip(letters, turn.options, strict=True)]
            field = forms.radio(lines, letters, say("common.answer", self.language))
        elif turn.kind == "code":
            field = forms.area(self.say("code-field"), "", self.say("code-field"), turn.stub, 12)
        elif turn.kind == "speak":
            field = forms.area(self.say("notes"), self.say("notes-hint"), self.say("notes"), "", 2)
        else:
            key = "layout-field" if turn.kind == "layout" else ""
            words = self.say(key) if key else say("common.answer", self.language)
            field = forms.text(words, "tp=8 pp=4 zero=1" if key else "", words)
        return field, lambda: field.value or ""

    def _sure(self) -> Any:
        lines = [self.say("sure-none"), *(f"{share:.0%}" for share in SURE)]
        return forms.dropdown(self.say("sure"), lines, [-1.0, *SURE], self.say("sure"))

    def _answer(self, turn: Turn, given: Callable[[], Any], sure: Any, below: Any) -> None:
        """Takes an answer; below it stands what is said to it, and what follows."""
        interview = self.interview
        if interview is None or interview.turn is not turn:
            return
        if turn.kind == "code":
            below.children = [forms.html(forms.status(page.Page("…", [self._line("wait-grade")], "note")))]
        said = interview.answer(given(), sure.value if sure.value >= 0 else None)
        self.clock.set(interview.left_s, text=turn.model, unasked=interview.answered)
        shown = forms.html(forms.status(said))
        if turn.kind == "speak":
            below.children = [shown, *self._ticks(turn)]
        else:
            below.children = [shown, self._next()] if interview.answered else [shown]

    def _mine(self, turn: Turn, sure: Any, below: Any) -> None:
        """Hands in the function of the notebook."""
        self._answer(turn, lambda: "", sure, below)

    def _reveal(self, below: Any) -> None:
        if self.interview and self.interview.turn:
            below.children = [forms.html(forms.status(self.interview.reveal())), self._next()]

    def _ticks(self, turn: Turn) -> list[Any]:
        """The points of a good answer, each with a box to tick."""
        interview = self.interview
        assert interview
        boxes = []
        for number, point in enumerate(turn.points, 1):
            tick = forms.tick(str(number), f"{number}: {point.text}", point.key in interview.suggested)
            boxes.append((point.key, tick, forms.html(f'<div class="plab">{page.markdown(point.text).html}</div>')))

        def keep() -> None:
            if interview.turn is turn:
                interview.mark([key for key, tick, _ in boxes if tick.value])
                self._go_on()

        rows = [forms.box(tick, text, side_by_side=True) for _, tick, text in boxes]
        words = forms.html(page.paragraph(self.say("ticks"), lang=lang(self.language)).html)
        return [words, *rows, forms.button(self.say("keep"), self.say("keep"), keep)]

    def _next(self) -> Any:
        return forms.button(self.say("go-on"), self.say("go-on"), self._go_on)

    def _go_on(self) -> None:
        if self.interview:
            self.interview.go_on()
            self._show()

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
        unreached = len(interview.rounds) - 1 - interview.place
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
        """What an interview is made of, for each length, and what each role is asked most about."""
        words = self.language
        parts = [*self._about()[:2], self._line("example")]
        head = (self.say("role"), say("report.topic", words), "")
        rows = []
        for one in roles().values():
            most = sorted(one.topics.items(), key=lambda item: -item[1].weight)[:SHOWN_TOPICS]
            for chapter, weight in most:
                why = weight.zh if words == "zh" else weight.why
                rows.append((one.title[words], f"{chapter} {say(f'chapter.{chapter}', words)}", why))
        return page.Page(self.say("title"), [*parts, page.table(head, rows), self._line("where", "small")])


def _raw(key: str, language: str) -> str:
    """A text of the clock whose numbers the browser fills in."""
    return say(f"clock.{key}", language, minutes="{minutes}", seconds="{seconds}")


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
