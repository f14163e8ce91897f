"""What an exercise is: cases, expectation and graders as data. Its texts stand in `exercises/<name>.md`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, NamedTuple

import torch

from parallel_lab.grading.case import Case
from parallel_lab.grading.expectations import Grader, heard
from parallel_lab.grading.lab import Outcome

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
    """A test of the checks that `on` and `changed_on` made, in this order."""
    return Test(title, tuple(check for several in checks for check in several))


def on(ranks: int | Sequence[int], *graders: Grader, **settings: Any) -> list[Check]:
    """A check for each number of ranks: its case runs with `settings` (`link` is a network), `graders` look at it."""
    several = (ranks,) if isinstance(ranks, int) else ranks
    return [Check(Case(n, tuple(settings.items())), graders) for n in several]


def on_each(cases: Sequence[dict[str, Any]], *graders: Grader) -> list[Check]:
    """A check for each of `cases`, the settings of a training whose `counts` name a number of batches for each rank."""
    return [check for case in cases for check in on(len(case["counts"]), *graders, **case)]


def changed_on(ranks: int, **settings: Any) -> list[Check]:
    """A check in which something arrives changed, and the result must change with it."""
    return [Check(Case(ranks, tuple(settings.items()), changed=True), (heard(),))]


@dataclass(frozen=True)
class Exercise:
    """One task of an exercise notebook.

    Attributes:
        name: of the function that the learner writes, and of the check: `ring_all_reduce`.
        given: `given(case, rank, generator)`, the arguments of that rank's call.
        tests: the cheapest and most telling first; each counts the same.
        always: what every outcome must stand up to besides, but for a changed one.
        expected: `expected(outcome)`, what each rank should return; computed in the kernel, which alone knows it.
        drive: `drive(fn, case, *arguments)`, what a rank runs; None for `fn(*arguments)`.
        settings: those of every case that does not say otherwise.
        device: of the ranks, as of `launch`.
        text: title, level, minutes and notebook, then hints, then a note; read from the Markdown file.
    """

    name: str
    given: Callable[[Case, int, torch.Generator], tuple]
    tests: Sequence[Test]
    always: Sequence[Grader] = ()
    expected: Callable[[Outcome], list] = lambda outcome: outcome.results
    drive: Callable | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    text: str = ""

    def __post_init__(self) -> None:
        text = self.text or FOLDER.joinpath(f"{self.name}.md").read_text(encoding="utf-8")
        object.__setattr__(self, "text", text)
        if self.level not in LEVELS or not self.tests:
            raise ValueError(f"exercise {self.name}: wants a level of {', '.join(LEVELS)}, and tests")

    def _said(self, key: str) -> str:
        return re.findall(rf"^{key}: (.*)$", self.text, flags=re.MULTILINE)[0]

    @property
    def title(self) -> str:
        """One line."""
        return self._said("title")

    @property
    def level(self) -> str:
        """`easy`, `medium` or `hard`."""
        return self._said("level")

    @property
    def minutes(self) -> int:
        """How long it takes a learner."""
        return int(self._said("minutes"))

    @property
    def notebook(self) -> str:
        """The name that the stub and the solution notebook share, without folder and ending."""
        return self._said("notebook")

    @property
    def chapter(self) -> str:
        """The two digits that the notebook's name begins with."""
        return self.notebook[:2]

    @property
    def _paragraphs(self) -> list[str]:
        """What stands under each heading, a line each."""
        return [" ".join(body.split()) for body in re.split(r"^## .*$", self.text, flags=re.MULTILINE)[1:]]

    @property
    def hints(self) -> list[str]:
        """Questions that lead on, shown one at a time."""
        return self._paragraphs[:-1]

    @property
    def solution_note(self) -> str:
        """Shown after passing: why the reference solution is as it is."""
        return self._paragraphs[-1]
