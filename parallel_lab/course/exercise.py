"""What an exercise is: its graders as data. Its hints and its note stand in Markdown, in `exercises/<name>.md`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from parallel_lab.course.lab import Lab

# test(fn, lab) raises `Wrong`; the first line of its docstring is what the learner reads
Test = Callable[[Callable, Lab], None]
LEVELS = ("easy", "medium", "hard")
FOLDER = files("parallel_lab.course").joinpath("exercises")


@dataclass(frozen=True)
class Exercise:
    """One task of an exercise notebook.

    Attributes:
        name: of the function that the learner writes, and of the check: `ring_all_reduce`.
        title: one line.
        level: `easy`, `medium` or `hard`.
        minutes: how long it takes a learner.
        tests: graders, the cheapest and most telling first; each counts the same.
        notebook: the name that the stub and the solution notebook share, without folder and ending.
        timeout_s: after which ranks that wait for each other are ended.
        hints: questions that lead on, shown one at a time; read from the Markdown file where none are given.
        solution_note: shown after passing: why the reference solution is as it is; read as the hints are.
    """

    name: str
    title: str
    level: str
    minutes: int
    tests: tuple[Test, ...]
    notebook: str
    timeout_s: float = 10.0
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


def title_of(test: Test) -> str:
    """The first line of a test's docstring."""
    return (test.__doc__ or test.__name__).strip().splitlines()[0].rstrip(".")
