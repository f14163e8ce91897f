"""Self-checks in a notebook: `quiz("02-ring", choice(...), number(...))`.

In JupyterLab it is a small form with feedback; where no widgets run (a web view, a terminal) the saved cell shows the
questions with the answers folded. Feedback goes to an HTML widget and not through an Output widget, whose saved state
never compares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as widgets

from parallel_lab.course import page, progress
from parallel_lab.course.typed import off_by, parse_number

_LETTERS = "abcdefghij"


def _lettered(options: Sequence[str]) -> list[str]:
    return [f"{letter}) {option}" for letter, option in zip(_LETTERS, options, strict=False)]


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question; a notebook writes `choice(...)`.

    Raises:
        ValueError: `answer` is no option, or the counts do not fit.
    """

    question: str  # one or two sentences
    options: Sequence[str]  # two to ten
    answer: int | str  # the right option, or its place from 0
    why: str  # shown once the right option was picked, and under the folded answer
    notes: Sequence[str] = ()  # for each option, what picking it tells of a misunderstanding; empty, or one an option
    unit = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(_LETTERS) or not 0 <= self.place < len(self.options):
            raise ValueError(f"choice: {len(self.options)} options, answer {self.answer!r}")
        if self.notes and len(self.notes) != len(self.options):
            raise ValueError(f"choice: {len(self.notes)} notes for {len(self.options)} options")

    @property
    def place(self) -> int:
        """The place of the right option."""
        return list(self.options).index(self.answer) if isinstance(self.answer, str) else self.answer

    @property
    def shown_answer(self) -> str:
        """The right option, as folded away."""
        return _lettered(self.options)[self.place]

    def feedback(self, given: int | None) -> tuple[bool, str]:
        """Whether option `given` is right, and what to say about it."""
        if given is None:
            return False, "Pick an option first."
        note = self.notes[given] if self.notes else ""
        if given == self.place:
            return True, " ".join(filter(None, ["Right.", note, self.why]))
        return False, f"Not {_LETTERS[given]}). {note or 'Look again.'}"

    def input(self, number: int) -> widgets.RadioButtons:
        """The widget to answer with."""
        options = [(line, i) for i, line in enumerate(_lettered(self.options))]
        wide = widgets.Layout(width="auto")
        return widgets.RadioButtons(options=options, value=None, layout=wide, tooltip=f"Options of question {number}")


@dataclass(frozen=True)
class Number:
    """A number to compute; a notebook writes `number(...)`. One may type `1.5e6`, `1,500,000` or `1.5 MB`."""

    question: str
    answer: float
    tolerance: float = 0.01  # relative
    unit: str = ""
    why: str = ""
    options = ()

    @property
    def shown_answer(self) -> str:
        """The number with its unit, as folded away."""
        return f"{self.answer:,.6g} {self.unit}".strip()

    def feedback(self, given: str) -> tuple[bool, str]:
        """Whether the text `given` is right, and how far off it is."""
        try:
            value = parse_number(given, self.unit)
        except ValueError as error:
            return False, str(error)
        if math.isclose(value, self.answer, rel_tol=self.tolerance, abs_tol=1e-12):
            return True, f"Right. {self.why}".strip()
        return False, off_by(value, self.answer)

    def input(self, number: int) -> widgets.Text:
        """The widget to answer with."""
        words = {"description": f"Answer {self.unit}".strip(), "tooltip": f"Answer to {number}"}
        return widgets.Text(placeholder="a number", style={"description_width": "initial"}, **words)


choice, number = Choice, Number


@dataclass(frozen=True, repr=False)
class Quiz(page.Shown):
    """A self-check, ready to be shown in a cell; see `quiz`."""

    name: str
    questions: tuple[Choice | Number, ...]
    solved: set[int] = field(default_factory=set)

    def answer(self, place: int, given: Any) -> tuple[bool, str]:
        """Feedback for `given` as the answer to question `place` (from 0); records what is right in the progress."""
        right, said = self.questions[place].feedback(given)
        if right:
            self.solved.add(place)
        warning = progress.record_quiz(self.name, len(self.solved) / len(self.questions))
        return right, f"{said} {warning}".strip()

    def form(self) -> widgets.VBox:
        """The widgets: for each question its text, an input, a button and room for feedback."""
        return widgets.VBox([self._row(place) for place in range(len(self.questions))])

    def _asked(self, place: int) -> page.Part:
        one = self.questions[place]
        return page.paragraph(f"{place + 1}. {one.question}{f' (in {one.unit})' if one.unit else ''}")

    def _row(self, place: int) -> widgets.VBox:
        one = self.questions[place]
        field = one.input(place + 1)
        button = widgets.Button(description="Check", tooltip=f"Check the answer to question {place + 1}")
        feedback = widgets.HTML("")

        def clicked(_: Any) -> None:
            right, said = self.answer(place, field.value)
            feedback.value = f'<p role="status" lang="en">{"✓" if right else "✗"} {page.escape(said)}</p>'

        button.on_click(clicked)
        return widgets.VBox([widgets.HTML(self._asked(place).html), field, button, feedback])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        bundle = dict(self.form()._repr_mimebundle_() or {})  # the widget view, which JupyterLab prefers
        return bundle | {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def as_page(self) -> page.Page:
        """The questions; a terminal leaves the answers out."""
        parts = [page.paragraph("Self-check", "head")]
        for place, one in enumerate(self.questions):
            parts.append(self._asked(place))
            parts += [page.paragraph(line, indent=3) for line in _lettered(one.options)]
            answer = page.paragraph(one.shown_answer).html + page.paragraph(one.why).html
            parts.append(page.folded("Answer", page.Part(answer, ""))._replace(text=None))
        return page.Page(f"Self-check {self.name}", parts)


def quiz(name: str, *questions: Choice | Number) -> Quiz:
    """Self-check `name` with its questions; the name is what progress is kept under.

    Raises:
        ValueError: there are no questions.
    """
    if not questions:
        raise ValueError(f"quiz {name!r} has no questions")
    return Quiz(name, questions)
