"""Where the answers of an exercise come from, and what a check must say of an answer and of a cheat."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle

from parallel_lab.cli.answers import functions_in
from parallel_lab.course import progress
from parallel_lab.course.checks import check, grade
from parallel_lab.grading.exercises import EXERCISES

ROOT = Path(__file__).parents[2]


def by_value(module: str) -> None:
    """As from a notebook: ranks get the functions of a test's module and need not import it."""
    cloudpickle.register_pickle_by_value(sys.modules[module])


def solutions(name: str) -> dict[str, Any]:
    """The functions and classes that the solution notebook of an exercise defines.

    What it imports stays out: a cheat takes this along to each rank, which would load the course for a second.
    """
    space = functions_in(ROOT / "solutions" / f"{EXERCISES[name].notebook}.ipynb")
    return {key: value for key, value in space.items() if getattr(value, "__module__", "") == space["__name__"]}


def stubs(name: str) -> dict[str, Any]:
    """What the exercise notebook defines."""
    return functions_in(ROOT / "exercises" / f"{EXERCISES[name].notebook}.ipynb")


def assert_passes(name: str, answer: Callable) -> None:
    """All tests pass."""
    report = check(name, answer)
    assert report.passed, repr(report)


def assert_found_out(name: str, cheat: Callable, place: int, said: str) -> None:
    """Test number `place`, which must see through `cheat`, says `said`, a pattern where chance names the rank."""
    exercise = EXERCISES[name]
    title = list(exercise.tests)[place]
    report = grade(replace(exercise, tests={title: exercise.tests[title]}), cheat, save=False)
    assert report.score == 0 and report.verdicts, repr(report)
    assert re.search(said, repr(report)), repr(report)


def assert_ends_a_step(name: str, step: int, answer: Callable, said: str) -> None:
    """`answer` passes the check of `step`, which names the next one. That one fails, and says `said`, a pattern."""
    report = check(name, answer, step=step)
    assert report.passed and report.headline.startswith(f"{name}, step {step} of "), repr(report)
    assert 0 < report.score < 1 and progress.read()["exercises"][name]["best"] == report.score
    assert progress.read()["exercises"][name]["steps"] == step
    assert f"Next is step {step + 1} of " in repr(report), repr(report)
    report = check(name, answer, step=step + 1)
    assert not report.passed, repr(report)
    before = EXERCISES[name].steps[step - 1].tests
    assert all(verdict.state == "passed" for verdict in report.verdicts[:before]), repr(report)
    assert re.search(said, repr(report)), repr(report)
    assert "Next is step" not in repr(report), repr(report)
