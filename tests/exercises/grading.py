"""Where the answers of an exercise come from, and what a check must say of an answer, a stub and a cheat."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check, grade, reference_in
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.course.lab import Lab, Wrong

ROOT = Path(__file__).parents[2]


def solutions(notebook: str) -> dict[str, Any]:
    """What `solutions/<notebook>.ipynb` defines."""
    return functions_in(ROOT / "solutions" / f"{notebook}.ipynb")


def stubs(notebook: str) -> dict[str, Any]:
    """What `exercises/<notebook>.ipynb` defines."""
    return functions_in(ROOT / "exercises" / f"{notebook}.ipynb")


def assert_full_marks(name: str, answer: Callable) -> None:
    """`answer` solves the exercise, and its report shows the note for those who did."""
    report = check(name, answer)
    assert report.score == 1, repr(report)
    assert EXERCISES[name].solution_note in repr(report)


def assert_no_marks(name: str, stub: Callable) -> None:
    report = check(name, stub)
    assert report.score == 0
    assert not report.passed


def assert_generated(notebook: str) -> None:
    """The exercise is, to the byte, what the command makes of the solution."""
    written = (ROOT / "exercises" / f"{notebook}.ipynb").read_bytes().decode()
    assert written == generate.generate(ROOT, notebook)


def assert_passes(name: str, answer: Callable) -> None:
    report = check(name, answer)
    assert report.passed, repr(report)


def assert_fails(name: str, cheat: Callable, said: str) -> None:
    """A whole check of `cheat` fails and says `said`."""
    report = check(name, cheat)
    assert not report.passed
    assert said in repr(report), repr(report)


def assert_found_out(name: str, cheat: Callable, grader: str, said: str) -> None:
    """The one grader that must see through `cheat` says `said`; a whole check would run the others as well."""
    telling = tuple(one for one in EXERCISES[name].tests if one.__name__ == grader)
    report = grade(replace(EXERCISES[name], tests=telling), cheat, save=False)
    assert report.score == 0
    assert said in repr(report), repr(report)


def failures(name: str, cheat: Callable, timeout: float = 10.0) -> Iterator[str]:
    """What the graders say of `cheat`, one after the other; whoever has heard enough runs no more of them."""
    lab = Lab(timeout=timeout)
    if reference := reference_in(cheat):
        yield reference
    for test in EXERCISES[name].tests:
        try:
            test(cheat, lab)
        except Wrong as wrong:
            yield wrong.seen


def assert_one_says(name: str, cheat: Callable, said: str | re.Pattern, timeout: float = 10.0) -> None:
    """One of the graders says `said`, a pattern where chance names the rank; those after it are not run."""
    pattern, seen = re.compile(re.escape(said) if isinstance(said, str) else said), []
    assert any(pattern.search(seen.append(one) or one) for one in failures(name, cheat, timeout)), seen
