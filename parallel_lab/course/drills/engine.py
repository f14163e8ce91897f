"""What a drill is: a function that draws numbers and says the question, the answer and the way to it; see `problem`."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Drawn:
    """A problem with its numbers.

    Attributes:
        steps: The derivation, a step a line; the last one ends in the answer.
        tolerance: How far an answer may be off, as a share of the right one: room for rounding on paper.
    """

    question: str
    answer: float
    steps: tuple[str, ...]
    unit: str = ""
    tolerance: float = 0.02


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
