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


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question; made by `choice`."""

    question: str
    options: tuple[str, ...]
    answer: int
    why: str
    notes: tuple[str, ...] = ()

    @property
    def shown_answer(self) -> str:
        """The right option, as folded away."""
        return f"{_LETTERS[self.answer]}) {self.options[self.answer]}"

    def feedback(self, given: int | None) -> tuple[bool, str]:
        """Whether option `given` is right, and what to say about it."""
        if given is None:
            return False, "Pick an option first."
        note = self.notes[given] if self.notes else ""
        if given == self.answer:
            return True, " ".join(["Right.", note, self.why]).replace("  ", " ").strip()
        return False, f"Not {_LETTERS[given]}). {note}".strip() + ("" if note else " Look again.")


@dataclass(frozen=True)
class Number:
    """A question whose answer is a number; made by `number`."""

    question: str
    answer: float
    tolerance: float = 0.01
    unit: str = ""
    why: str = ""

    @property
    def shown_answer(self) -> str:
        """The number with its unit, as folded away."""
        return f"{self.answer:,.6g} {self.unit}".strip()

    def feedback(self, given: str) -> tuple[bool, str]:
        """Whether the text `given` is right (within `tolerance`, relative), and how far off it is."""
        try:
            value = parse_number(given, self.unit)
        except ValueError as error:
            return False, str(error)
        if math.isclose(value, self.answer, rel_tol=self.tolerance, abs_tol=1e-12):
            return True, f"Right. {self.why}".strip()
        return False, off_by(value, self.answer)


def choice(question: str, options: Sequence[str], answer: int | str, why: str, notes: Sequence[str] = ()) -> Choice:
    """A multiple-choice question.

    Args:
        question: one or two sentences.
        options: two to ten.
        answer: the right option, or its place from 0.
        why: shown once the right option was picked, and under the folded answer.
        notes: for each option, what picking it tells of a misunderstanding; empty, or one an option.

    Raises:
        ValueError: `answer` is no option, or the counts do not fit.
    """
    place = list(options).index(answer) if isinstance(answer, str) else answer
    if not 2 <= len(options) <= len(_LETTERS) or not 0 <= place < len(options):
        raise ValueError(f"choice: {len(options)} options, answer {answer!r}")
    if notes and len(notes) != len(options):
        raise ValueError(f"choice: {len(notes)} notes for {len(options)} options")
    return Choice(question, tuple(options), place, why, tuple(notes))


def number(question: str, answer: float, tolerance: float = 0.01, unit: str = "", why: str = "") -> Number:
    """A number to compute, right within the relative `tolerance`; one may type `1.5e6`, `1,500,000` or `1.5 MB`."""
    return Number(question, float(answer), tolerance, unit, why)


@dataclass(frozen=True)
class Quiz:
    """A self-check, ready to be shown in a cell; see `quiz`."""

    name: str
    questions: tuple[Choice | Number, ...]
    solved: set[int] = field(default_factory=set)

    def answer(self, place: int, given: Any) -> tuple[bool, str]:
        """Feedback for `given` as the answer to question `place` (from 0); records what is right in the progress."""
        right, said = self.questions[place].feedback(given)
        if right:
            self.solved.add(place)
        warning = progress.record_quiz(self.name, len(self.solved), len(self.questions))
        return right, f"{said} {warning}".strip()

    def form(self) -> widgets.VBox:
        """The widgets: for each question its text, an input, a button and room for feedback."""
        return widgets.VBox([_row(self, place) for place in range(len(self.questions))])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        bundle = dict(self.form()._repr_mimebundle_() or {})  # the widget view, which JupyterLab prefers
        return bundle | {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        parts = [page.paragraph("Self-check", "head")]
        for place, one in enumerate(self.questions, 1):
            parts.append(page.paragraph(_asked(one, place)))
            if isinstance(one, Choice):
                parts += [page.paragraph(f"{_LETTERS[i]}) {text}") for i, text in enumerate(one.options)]
            answer = page.paragraph(one.shown_answer) + page.paragraph(one.why)
            parts.append(page.folded("Answer", answer))
        return page.box(parts, f"Self-check {self.name}")

    def __repr__(self) -> str:
        lines = ["Self-check"]
        for place, one in enumerate(self.questions, 1):
            lines.append(_asked(one, place))
            if isinstance(one, Choice):
                lines += [f"   {_LETTERS[i]}) {text}" for i, text in enumerate(one.options)]
        return "\n".join(lines)


def quiz(name: str, *questions: Choice | Number) -> Quiz:
    """Self-check `name` with its questions; the name is what progress is kept under.

    Raises:
        ValueError: there are no questions.
    """
    if not questions:
        raise ValueError(f"quiz {name!r} has no questions")
    return Quiz(name, questions)


def _asked(one: Choice | Number, place: int) -> str:
    unit = f" (in {one.unit})" if isinstance(one, Number) and one.unit else ""
    return f"{place}. {one.question}{unit}"


def _row(quiz: Quiz, place: int) -> widgets.VBox:
    one = quiz.questions[place]
    field = _input(one, place)
    button = widgets.Button(description="Check", tooltip=f"Check the answer to question {place + 1}")
    feedback = widgets.HTML("")

    def clicked(_: Any) -> None:
        right, said = quiz.answer(place, field.value)
        mark = "✓" if right else "✗"
        feedback.value = f'<p role="status" lang="en">{mark} {page.escape(said)}</p>'

    button.on_click(clicked)
    text = widgets.HTML(page.paragraph(_asked(one, place + 1)))
    return widgets.VBox([text, field, button, feedback])


def _input(one: Choice | Number, place: int) -> Any:
    if isinstance(one, Choice):
        options = [(f"{_LETTERS[i]}) {text}", i) for i, text in enumerate(one.options)]
        wide = widgets.Layout(width="auto")
        return widgets.RadioButtons(
            options=options, value=None, layout=wide, tooltip=f"Options of question {place + 1}"
        )
    box = widgets.Text(
        placeholder="a number", description=f"Answer {one.unit}".strip(), tooltip=f"Answer to {place + 1}"
    )
    box.style.description_width = "initial"
    return box
