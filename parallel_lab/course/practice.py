"""Drills: `drill("ring-bytes")` asks a problem with fresh numbers at every call, and derives the answer."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from parallel_lab.course import forms, page, progress
from parallel_lab.course.asked import Number, heading, reads
from parallel_lab.course.drills import problems
from parallel_lab.course.drills.engine import Drawn, Problem
from parallel_lab.course.typed import named


@dataclass(frozen=True, repr=False)
class Drill(page.Shown):
    """A problem that draws its numbers, ready to be shown in a cell; see `drill`."""

    problem: Problem
    dice: Random = field(default_factory=Random)

    def draw(self) -> Drawn:
        """The problem with the next numbers."""
        return self.problem.draw(self.dice)

    def answer(self, drawn: Drawn, given: str | None) -> tuple[bool, str]:
        """Whether the text `given` is right, and what a wrong number hints at; keeps the outcome in the progress."""
        one = asked(drawn)
        right, said = one.feedback(given)
        warning = progress.record_drill(self.problem.name, right) if reads(one, given) else ""
        return right, f"{said} {warning}".strip()

    def give_up(self) -> str:
        """Keeps that the solution was asked for before a right answer; returns a warning, or nothing."""
        return progress.record_drill(self.problem.name, right=False)

    def form(self) -> Any:
        """The widgets: the problem, an input, and buttons to check, to see the solution, to draw other numbers."""
        name, place = self.problem.name, forms.box()

        def ask() -> None:
            drawn = self.draw()
            one = asked(drawn)
            below, solved = forms.html(), False

            def check(given: str | None) -> page.Page:
                nonlocal solved
                right, said = self.answer(drawn, given)
                solved = solved or right
                shown = page.verdict(right, "Right" if right else "Not yet", said)
                return shown._replace(parts=[*shown.parts, *(solution(drawn) if right else ())])

            def show() -> None:
                if not solved:
                    self.give_up()
                below.value = forms.status(page.Page("Solution", solution(drawn), "note"))

            row = forms.row(heading(one), one.input(f"Answer to {name}"), "Check", f"Check the answer to {name}", check)
            see = forms.button("Show the solution", f"Derive the answer to {name}", show)
            again = forms.button("Other numbers", f"Ask {name} with other numbers", ask)
            place.children = [row, forms.box(see, again, side_by_side=True), below]

        ask()
        head = "".join(part.html for part in [page.Part(page.STYLE, None), *self._head()])
        return forms.box(forms.html(f'<div class="plab">{head}</div>'), place)

    def _head(self) -> list[page.Part]:
        return [page.paragraph(f"Drill · {self.problem.title}", "head")]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """One draw of the problem, the same at every call, and where to answer it with fresh numbers."""
        name = self.problem.name
        sample = self.problem.draw(Random(name))
        where = f"Each call draws other numbers. Run this cell in JupyterLab, or type plab drill {name} in a terminal."
        example, small = page.paragraph("For example:", "small"), page.paragraph(where, "small")
        return page.Page(f"Drill {name}", [*self._head(), example, *heading(asked(sample)), small])


def asked(drawn: Drawn) -> Number:
    """The problem as a question for a number."""
    return Number(drawn.question, drawn.answer, drawn.unit, drawn.tolerance)


def solution(drawn: Drawn) -> list[page.Part]:
    """The derivation, step by step."""
    return [page.markdown("\n".join(f"{n}. {step}" for n, step in enumerate(drawn.steps, 1)))]


def drill(name: str, seed: int | None = None) -> Drill:
    """A problem to solve with pen and paper, with fresh numbers at every call.

    Args:
        name: as `"ring-bytes"`.
        seed: the same numbers for the same seed; fresh ones without.

    Raises:
        UnknownName: there is no such drill; this KeyError names the nearest ones.
    """
    return Drill(named("drill", name, problems()), Random(seed))
