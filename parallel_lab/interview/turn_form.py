"""The widgets of one turn of a mock interview: what is asked, what to answer with, what is said to it, the way on.

A button acts on its own turn alone: who presses twice while a job runs does not skip what comes next.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from parallel_lab.course import forms, page
from parallel_lab.course.asked import Choice
from parallel_lab.interview.asking import CONFIDENCES
from parallel_lab.interview.mock import Mock
from parallel_lab.interview.rounds import WORDS, Turn
from parallel_lab.interview.words import lang, say

CODE_LINES, NOTE_LINES = 12, 2


class TurnForm:
    """What a turn looks like in a cell.

    Attributes:
        interview: That the turn belongs to.
        turn: What is asked.
        clock: The widget that is set for it.
        shown_next: Shows the turn that comes next.
    """

    def __init__(self, interview: Mock, turn: Turn, clock: Any, shown_next: Callable[[], None]) -> None:
        self.interview, self.turn, self.clock = interview, turn, clock
        self.shown_next = shown_next
        self._below = forms.box()
        self._field = self._answered_with()
        lines = [self._say("sure-none"), *(f"{share:.0%}" for share in CONFIDENCES)]
        self._sure = forms.dropdown(self._say("sure"), lines, [-1.0, *CONFIDENCES], self._say("sure"))

    def _say(self, key: str, **values: Any) -> str:
        return self.interview.say(key, **values)

    def _line(self, key: str, kind: str = "small", **values: Any) -> page.Part:
        return page.paragraph(self._say(key, **values), kind, lang(self.interview.language))

    def widgets(self, stop: Any) -> list[Any]:
        """All of them, with the button that ends the interview beside the others."""
        turn = self.turn
        asked = page.Page(self._say("title"), [*self._head(), page.markdown(turn.ask), *turn.shown])
        buttons = forms.box(*self._buttons(), stop, side_by_side=True)
        return [forms.html(forms.status(asked)), self._sure, self._field, buttons, self._below]

    def _head(self) -> list[page.Part]:
        """Where the interview stands, and how long to speak."""
        interview, turn = self.interview, self.turn
        lines = [page.paragraph(interview.where, "small", lang(interview.language))]
        if turn.follow:
            lines.append(self._line("follow-up-missed" if turn.missed else "follow-up", number=turn.follow))
        if turn.kind == "speak":
            count = WORDS[turn.speak_s][interview.language]
            lines.append(self._line("speak", seconds=turn.speak_s, count=count))
        return lines

    def _answered_with(self) -> Any:
        """What to answer with."""
        turn, words = self.turn, say("common.answer", self.interview.language)
        if turn.kind == "choice":
            return Choice("", turn.options).input(words)
        if turn.kind == "code":
            return forms.area(self._say("code-field"), "", self._say("code-field"), turn.stub, CODE_LINES)
        if turn.kind == "speak":
            return forms.area(self._say("notes"), self._say("notes-hint"), self._say("notes"), "", NOTE_LINES)
        if turn.kind == "layout":
            return forms.text(self._say("layout-field"), "tp=8 pp=4 zero=1", self._say("layout-field"))
        return forms.text(words, "", words)

    def _buttons(self) -> list[Any]:
        """One to answer; where a machine judges one to give up, and for code one that takes the notebook's function."""
        kind = self.turn.kind
        key = {"speak": "mock.answered", "code": "mock.check-code"}.get(kind, "common.check")
        words = say(key, self.interview.language)
        found = [forms.button(words, words, lambda: self._answer(self._field.value or ""))]
        if kind == "code":
            found.append(forms.button(self._say("mine"), self._say("mine"), partial(self._answer, "")))
        if kind != "speak":
            found.append(forms.button(self._say("give-up"), self._say("give-up"), self._reveal))
        return found

    @property
    def _is_over(self) -> bool:
        return self.interview.turn is not self.turn

    def _answer(self, given: Any) -> None:
        """Takes an answer; below it stands what is said to it, and what follows."""
        interview, turn = self.interview, self.turn
        if self._is_over:
            return
        if turn.kind == "code":
            waits = page.Page("…", [self._line("wait-grade", "")], "note")
            self._below.children = [forms.html(forms.status(waits))]
        said = forms.html(forms.status(interview.answer(given, self._sure.value if self._sure.value >= 0 else None)))
        self.clock.set(interview.left_s, text=turn.model, unasked=interview.answered)
        if turn.kind == "speak":
            self._below.children = [said, *self._ticks()]
        else:
            self._below.children = [said, self._next()] if interview.answered else [said]

    def _reveal(self) -> None:
        if not self._is_over:
            said = forms.html(forms.status(self.interview.reveal()))
            self._below.children = [said, self._next()]

    def _ticks(self) -> list[Any]:
        """The points of a good answer, each with a box to tick."""
        ticks = []
        for number, point in enumerate(self.turn.points, 1):
            tick = forms.tick(str(number), f"{number}: {point.text}", point.key in self.interview.suggested)
            ticks.append((point.key, tick, forms.parts([page.markdown(point.text)])))

        def keep() -> None:
            if not self._is_over:
                self.interview.mark([key for key, tick, _ in ticks if tick.value])
                self._go_on()

        rows = [forms.box(tick, text, side_by_side=True) for _, tick, text in ticks]
        words = forms.parts([self._line("ticks", "")])
        return [words, *rows, forms.button(self._say("keep"), self._say("keep"), keep)]

    def _next(self) -> Any:
        return forms.button(self._say("go-on"), self._say("go-on"), self._go_on)

    def _go_on(self) -> None:
        if not self._is_over:
            self.interview.go_on()
            self.shown_next()
