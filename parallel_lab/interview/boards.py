"""A whiteboard that runs: `whiteboard("0F0 0F1 ...")`, a layout, or some lines of code.

A schedule is parsed, checked and simulated; a layout is priced by the planner; code is carried out by real ranks. What
stands on the board is told by how it begins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parallel_lab.course import forms, page
from parallel_lab.interview.board import Answer, block, sentence
from parallel_lab.interview.board_code import answer_code
from parallel_lab.interview.board_layout import EXAMPLE, answer_layout, is_layout
from parallel_lab.interview.board_schedule import answer_schedule, is_schedule
from parallel_lab.interview.words import lang, language_of, say
from parallel_lab.runtime import Link

MOST_RANKS = 8
NAMES = ("rank", "n", "torch", "dist")  # what code on the board may consist of alone
SCHEDULE = "0F0 0F1 0B0 0B1\n1F0 1B0 1F1 1B1"
CODE = "x = torch.tensor([rank + 1.0])\ndist.all_reduce(x)\nx"
EXAMPLES = {"schedule": SCHEDULE, "layout": EXAMPLE, "code": CODE}


def answered(
    written: str | Callable, *, ranks: int = 4, link: Link | None = None, run: bool = False, language: str | None = None
) -> Answer:
    """The answer to what is written; the arguments are those of `whiteboard`.

    Raises:
        TypeError: it is neither text nor a function.
        ValueError: the board is empty or has one unknown word, there are too many ranks, or no such language.
    """
    own = language_of(language)
    if not 1 <= ranks <= MOST_RANKS:
        raise ValueError(say("whiteboard.ranks", own, most=MOST_RANKS, ranks=ranks))
    if callable(written):
        return answer_code(written, ranks, link, own)
    if not isinstance(written, str):
        raise TypeError(f"a whiteboard takes text or a function, not {written!r}")
    if not written.strip():
        raise ValueError(say("whiteboard.empty", own, example=EXAMPLE))
    if is_schedule(written):
        return answer_schedule(written, own, run)
    if is_layout(written):
        return answer_layout(written.strip(), own)
    if written.strip().isidentifier() and written.strip() not in NAMES:
        raise ValueError(say("whiteboard.unknown", own, written=written.strip(), example=EXAMPLE))
    return answer_code(written, ranks, link, own)


@dataclass(frozen=True, repr=False)
class Board(page.Shown):
    """A board to write on, ready to be shown in a cell."""

    ranks: int = 4
    link: Link | None = None
    language: str = "en"

    def answer(self, written: str, run: bool = False) -> page.Page:
        """What the board answers, errors as sentences."""
        try:
            found = answered(written, ranks=self.ranks, link=self.link, run=run, language=self.language)
        except ValueError as wrong:
            return page.Page(self.title, [page.paragraph(str(wrong), lang=lang(self.language))], "bad")
        return found.as_page()

    @property
    def title(self) -> str:
        """What the board is called."""
        return say("whiteboard.title", self.language)

    def form(self) -> Any:
        """The widgets: an area to write in, a button to ask, one to ask real ranks as well."""
        own, said = self.language, forms.html()
        field = forms.area(self.title, SCHEDULE, say("whiteboard.ask", own), lines=7)

        def ask(run: bool) -> None:
            running = page.Page(self.title, [sentence("whiteboard.running", own)], "note")
            said.value = forms.status(running)
            said.value = forms.status(self.answer(field.value, run))

        tips = "whiteboard.answer-tip", "whiteboard.real-tip"
        one = forms.button(say("whiteboard.answer", own), say(tips[0], own), lambda: ask(False))
        real = forms.button(say("whiteboard.real", own), say(tips[1], own), lambda: ask(True))
        buttons = forms.box(one, real, side_by_side=True)
        return forms.box(forms.parts(self._head(), style=True), field, buttons, said)

    def _head(self) -> list[page.Part]:
        own = self.language
        return [page.paragraph(self.title, "head", lang(own)), sentence("whiteboard.ask", own)]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """What may be written, an example each, and where."""
        parts = self._head()
        for kind, text in EXAMPLES.items():
            parts += [sentence(f"whiteboard.{kind}-example", self.language), block(text)]
        where = say("common.where", self.language, command="plab whiteboard")
        return page.Page(self.title, [*parts, page.paragraph(where, "small", lang(self.language))])


def whiteboard(
    written: str | Callable | None = None,
    *,
    ranks: int = 4,
    link: Link | None = None,
    run: bool = False,
    language: str | None = None,
) -> Answer | Board:
    """Answers what is written on a whiteboard; without anything, shows a board to write on.

    A schedule has a row for each rank, on lines of its own or between `/`: `"0F0 0F1 0B0 0B1 / 1F0 1B0 1F1 1B1"`. A
    layout names a model, machines and axes: `"llama3-8b on 64 h100-ib: tp=8 pp=2 dp=4"`. All else is Python that every
    rank runs, or a function without arguments.

    Args:
        written: a schedule, a layout, lines of code, or a function.
        ranks: how many carry out code.
        link: an emulated slower link for code.
        run: whether real ranks carry out a schedule as well.
        language: `en` or `zh`; that of the environment by default.

    Raises:
        TypeError: what is written is neither text nor a function.
        ValueError: it is empty, there are too many ranks, or no such language.
    """
    if written is None:
        return Board(ranks, link, language_of(language))
    return answered(written, ranks=ranks, link=link, run=run, language=language)
