"""What a drill is: a function that draws numbers and says the question, the answer and the way to it; see `problem`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from parallel_lab.course.asked import Wrong, recognizable


@dataclass(frozen=True)
class Drawn:
    """A problem with its numbers.

    Attributes:
        steps: The derivation, a step a line; the last one ends in the answer.
        tolerance: How far an answer may be off, as a share of the right one: room for rounding on paper.
        wrong: What known wrong formulas come to with these numbers, each with a sentence that says what was done and
            does not give the answer away. With some numbers a wrong formula comes to the right answer, or to what
            another one comes to; then it is left out, so that nobody hears of a mistake that was not made.
    """

    question: str
    answer: float
    steps: tuple[str, ...]
    unit: str = ""
    tolerance: float = 0.02
    wrong: tuple[Wrong, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "wrong", _told_apart(self.wrong, self.answer, self.tolerance))


def _told_apart(wrong: Sequence[Wrong], answer: float, tolerance: float) -> tuple[Wrong, ...]:
    """Those of `wrong` that no rounding makes equal to the answer or to one before."""
    near, kept = recognizable(tolerance), []
    for value, said in wrong:
        others = [(answer, tolerance + near), *((other, 2 * near) for other, _ in kept)]
        if value and not any(math.isclose(value, other, rel_tol=apart) for other, apart in others):
            kept.append((value, said))
    return tuple(kept)


@dataclass(frozen=True)
class Problem:
    """A drill: its name, the chapter that teaches it, what it asks for, and the function that draws it."""

    name: str
    chapter: str
    title: str
    draw: Callable[[Random], Drawn]


PROBLEMS: dict[str, Problem] = {}


def problem(name: str, *, chapter: str) -> Callable[[Callable[[Random], Drawn]], Callable[[Random], Drawn]]:
    """Registers the function below as drill `name`; the first line of its docstring says what is asked for.

    Raises:
        ValueError: another function has that name.
    """

    def register(draw: Callable[[Random], Drawn]) -> Callable[[Random], Drawn]:
        if name in PROBLEMS and PROBLEMS[name].draw.__module__ != draw.__module__:
            raise ValueError(f"two drills are called {name}: in {PROBLEMS[name].draw.__module__} and {draw.__module__}")
        title = (draw.__doc__ or name).strip().splitlines()[0].rstrip(".")
        PROBLEMS[name] = Problem(name, chapter, title, draw)
        return draw

    return register
