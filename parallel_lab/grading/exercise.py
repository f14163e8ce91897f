"""What an exercise is: cases, expectation and graders as data. Its texts stand in `exercises/<name>.md`."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import accumulate, islice
from typing import Any, NamedTuple

import torch

from parallel_lab.grading.expect import Grader, heard
from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.rank_side import Case


class Check(NamedTuple):
    """One case, and what its outcome must stand up to."""

    case: Case
    graders: tuple[Grader, ...]


def cases(names: str, *values: tuple) -> tuple[dict[str, Any], ...]:
    """The settings of several cases, as pytest writes them: `cases("ranks shape", (3, (7,)), (4, (5, 3)))`."""
    return tuple(dict(zip(names.split(), one, strict=True)) for one in values)


def on(several: int | Iterable[int | Mapping[str, Any]], *graders: Grader, **settings: Any) -> list[Check]:
    """A check for each number of ranks, or each of `cases`: it runs with `settings`, and `graders` look at it.

    A case that does not name its `ranks` has as many as its `counts`. The setting `link` is a network.
    """
    checks = []
    for one in (several,) if isinstance(several, int) else several:
        own: dict[str, Any] = {**settings, **({"ranks": one} if isinstance(one, int) else one)}
        ranks = own.pop("ranks", None) or len(own["counts"])
        checks.append(Check(Case(ranks, tuple(own.items())), graders))
    return checks


def changed_on(ranks: int, **settings: Any) -> list[Check]:
    """A check in which something arrives changed, and the result must change with it."""
    return on(ranks, heard(), changed=True, **settings)


class Step(NamedTuple):
    """A milestone of a longer exercise, graded by itself."""

    title: str  # what stands then
    minutes: int  # that it takes a learner who has taken the steps before
    tests: int  # how many tests of the exercise, from the first on, an answer passes then


@dataclass
class Exercise:
    """One task of an exercise notebook."""

    name: str  # of the function that the learner writes, and of the check: `ring_all_reduce`
    given: Callable[[Case, int, torch.Generator], tuple]  # of (case, rank, generator): the arguments of the rank's call
    # By title, step after step, and the cheapest and most telling first; each counts the same.
    tests: Mapping[str, Sequence[Check]]
    always: Sequence[Grader] = ()  # what every outcome must stand up to besides, but for a changed one
    expected: Callable[[Outcome], list] = lambda outcome: outcome.results  # what each rank should return
    drive: Callable | None = None  # of (fn, case, *arguments): what a rank runs; None for `fn(*arguments)`
    settings: dict[str, Any] = field(default_factory=dict)  # those of every case that does not say otherwise
    device: str = "auto"  # of the ranks, as of `launch`
    gap: bool = False  # whether it stands in a chapter, and not in an exercise notebook; its texts are in `gaps`
    text: str = ""  # of the Markdown file, if it is not `exercises/<name>.md`
    raised: Callable[[Case, str], str] = lambda case, error: ""  # the advice where a rank raised an error of this name

    def __post_init__(self) -> None:
        folder = files("parallel_lab.grading").joinpath("gaps" if self.gap else "exercises")
        text = self.text or folder.joinpath(f"{self.name}.md").read_text(encoding="utf-8")
        head, *bodies = re.split(r"^## .*$", text, flags=re.MULTILINE)
        said = dict(re.findall(r"^(\w+): (.*)$", head, flags=re.MULTILINE))
        self.title, self.level = said["title"], said["level"]  # `easy`, `medium` or `hard`
        self.asked = said.get("asked", "")  # whether interviewers ask it, in a few words
        rows = re.findall(r"^step: (\d+) minutes, (\d+) tests?, (.*)$", head, flags=re.MULTILINE)
        upto = accumulate(int(tests) for _, tests, _ in rows)
        self.steps = [Step(title, int(minutes), n) for (minutes, _, title), n in zip(rows, upto, strict=True)]
        self.minutes = sum(s.minutes for s in self.steps) or int(said["minutes"])  # that it takes a learner
        self.notebook = said["notebook"]  # the name that stub and solution share, without folder and ending
        self.chapter = self.notebook[:2]
        self.solution = f"solutions/gaps/{self.notebook}.py" if self.gap else f"solutions/{self.notebook}.ipynb"
        self.exercise = said.get("exercise", "")  # of a gap: the longer one that it leads to
        # Questions that lead on, shown one at a time; and, shown after passing, why the solution is as it is.
        *self.hints, self.solution_note = [" ".join(body.split()) for body in bodies]
        of_steps = re.findall(r"^## Hint(?:, step (\d+))?$", text, flags=re.MULTILINE)
        self.hint_steps = [int(step) if step else None for step in of_steps]  # None: the hint is for all of them

    def through(self, step: int) -> "Exercise":
        """This exercise with the tests of its first steps, up to number `step`.

        Raises:
            ValueError: it has no such step.
        """
        if not 1 <= step <= len(self.steps):
            has = f"{len(self.steps)} steps, counted from 1" if self.steps else "no steps"
            raise ValueError(f"{self.name} has {has}: there is no step {step}")
        return replace(self, tests=dict(islice(self.tests.items(), self.steps[step - 1].tests)))
