"""What an exercise is: cases, expectation and graders as data. Hints and note stand in `exercises/<name>.md`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, NamedTuple

import torch

from parallel_lab.grading.case import Case
from parallel_lab.grading.lab import Outcome
from parallel_lab.network import Link

Grader = Callable[[Outcome], None]  # raises `Wrong`
LEVELS = ("easy", "medium", "hard")
FOLDER = files("parallel_lab.grading").joinpath("exercises")


class Check(NamedTuple):
    """One case, and what its outcome must stand up to."""

    case: Case
    graders: tuple[Grader, ...]


class Test(NamedTuple):
    """What the learner reads as one line of the report, and what is run for it."""

    title: str
    checks: tuple[Check, ...]


def test(title: str, *checks: Sequence[Check]) -> Test:
    """A test of the checks that `on` made, in this order."""
    return Test(title, tuple(check for several in checks for check in several))


def on(ranks: int | Sequence[int], *graders: Grader, changed: bool = False, link: Link | None = None, **settings: Any):
    """A check for each number of ranks: its case runs with `settings`, and `graders` look at it."""
    several = (ranks,) if isinstance(ranks, int) else ranks
    return [Check(Case(n, tuple(settings.items()), changed, link), graders) for n in several]


@dataclass(frozen=True)
class Exercise:
    """One task of an exercise notebook.

    Attributes:
        name: of the function that the learner writes, and of the check: `ring_all_reduce`.
        title: one line.
        level: `easy`, `medium` or `hard`.
        minutes: how long it takes a learner.
        notebook: the name that the stub and the solution notebook share, without folder and ending.
        given: `given(case, rank, generator)`, the arguments of that rank's call.
        expected: `expected(outcome)`, what each rank should return; computed in the kernel, which alone knows it.
        tests: the cheapest and most telling first; each counts the same.
        drive: `drive(fn, case, *arguments)`, what a rank runs; None for `fn(*arguments)`.
        settings: those of every case that does not say otherwise.
        device: of the ranks, as of `launch`.
        hints: questions that lead on, shown one at a time; read from the Markdown file.
        solution_note: shown after passing: why the reference solution is as it is; read as the hints are.
    """

    name: str
    title: str
    level: str
    minutes: int
    notebook: str
    given: Callable[[Case, int, torch.Generator], tuple]
    tests: Sequence[Test]
    expected: Callable[[Outcome], list] = lambda outcome: outcome.results
    drive: Callable | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    hints: tuple[str, ...] = ()
    solution_note: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS or not self.tests:
            raise ValueError(f"exercise {self.name}: wants a level of {', '.join(LEVELS)}, and tests")
        if not self.hints:
            *hints, note = _paragraphs(self.name)
            object.__setattr__(self, "hints", tuple(hints))
            object.__setattr__(self, "solution_note", note)

    @property
    def chapter(self) -> str:
        """The two digits that the notebook's name begins with."""
        return self.notebook[:2]


def _paragraphs(name: str) -> list[str]:
    """What stands under each heading of an exercise's file, a line each: the hints, then the note after passing."""
    text = FOLDER.joinpath(f"{name}.md").read_text(encoding="utf-8")
    return [" ".join(body.split()) for body in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]]
