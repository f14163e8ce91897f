"""What an exercise is: its graders and hints as data."""

from collections.abc import Callable
from dataclasses import dataclass

from parallel_lab.course.lab import Lab

# test(fn, lab) raises `Wrong`; the first line of its docstring is what the learner reads
Test = Callable[[Callable, Lab], None]
LEVELS = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Exercise:
    """One task of an exercise notebook.

    Attributes:
        name: of the function that the learner writes, and of the check: `ring_all_reduce`.
        chapter: two digits.
        title: one line.
        level: `easy`, `medium` or `hard`. minutes: how long it takes a learner.
        tests: graders, the cheapest and most telling first; each counts the same.
        hints: questions that lead on, shown one at a time.
        solution_note: shown after passing: why the reference solution is as it is.
        notebook: the name that the stub and the solution notebook share, without folder and ending.
        timeout_s: after which ranks that wait for each other are ended.
    """

    name: str
    chapter: str
    title: str
    level: str
    minutes: int
    tests: tuple[Test, ...]
    hints: tuple[str, ...]
    solution_note: str
    notebook: str
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.level not in LEVELS or not self.tests or not self.hints:
            raise ValueError(f"exercise {self.name}: wants a level of {', '.join(LEVELS)}, tests and hints")


def title_of(test: Test) -> str:
    """The first line of a test's docstring."""
    return (test.__doc__ or test.__name__).strip().splitlines()[0].rstrip(".")
