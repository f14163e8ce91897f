"""The kinds of questions: a number, one of several options, an order; what is typed, what is right, what is said."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from parallel_lab.course import forms, page
from parallel_lab.course.typed import off_by, parse_number

_LETTERS = "abcdefghij"
Wrong = tuple[float, str]  # what a known wrong formula comes to, and what is said to who typed that


@dataclass(frozen=True)
class Number:
    """A number to compute. One may type `1.5e6`, `1,500,000` or `1.5 MB`."""

    question: str
    answer: float = math.nan  # that of a self-check; a prediction is compared with what was measured
    unit: str = ""
    tolerance: float = 0.01  # relative
    why: str = ""
    wrong: Sequence[Wrong] = ()
    options = ()

    def read(self, given: str | None) -> float:
        """The number that was typed; a ValueError says what is wrong with it."""
        return parse_number(given or "", self.unit)

    def measured(self, value: Any) -> float:
        """What a run measured, as a number."""
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"a number{f' in {self.unit}' if self.unit else ''}")
        return float(value)

    def same(self, one: Any, other: Any) -> bool:
        """Whether two numbers are equal within the tolerance."""
        return math.isclose(one, other, rel_tol=self.tolerance, abs_tol=1e-12)

    def words(self, value: Any) -> str:
        """A number with its unit."""
        return f"{value:,.4g} {self.unit}".strip() if abs(value) < 1e4 else f"{value:,.0f} {self.unit}".strip()

    def feedback(self, given: str | None) -> tuple[bool, str]:
        """Whether the text `given` is right, and what a wrong number hints at."""
        try:
            value = self.read(given)
        except ValueError as error:
            return False, str(error)
        right = self.same(value, self.answer)
        return right, self.why if right else self.mistake(value) or off_by(value, self.answer)

    def mistake(self, value: float) -> str:
        """What is said of the known wrong formula that comes to `value`; empty where none does."""
        near, known = recognizable(self.tolerance), list(self.wrong)
        if self.unit == "%":
            known.append((self.answer / 100, "You typed a share of 1. The answer is asked for in per cent."))
        fits = [(abs(value - wrong), said) for wrong, said in known if math.isclose(value, wrong, rel_tol=near)]
        return min(fits, default=(0.0, ""))[1]

    def input(self, label: str, value: str | None = None) -> Any:
        """The widget to answer with."""
        return forms.text(f"Answer {self.unit}".strip(), "a number", label, value)


@dataclass(frozen=True)
class Choice:
    """One of several options, known by its letter."""

    question: str
    options: Sequence[str]
    right: int = -1  # the place of the right option, from 0; -1 in a prediction
    why: str = ""  # said once the right option was picked
    notes: Sequence[str] = ()  # for each option, what picking it tells of a misunderstanding; empty, or one an option
    unit = ""

    def read(self, given: str | None) -> int:
        """The place of the option with the letter `given`."""
        letter = (given or "").strip().rstrip(")").lower()
        if len(letter) != 1 or letter not in _LETTERS[: len(self.options)]:
            raise ValueError("Pick an option first.")
        return _LETTERS.index(letter)

    def measured(self, value: Any) -> int:
        """The place of the option that a run showed, given as its text or its place."""
        if value in self.options:
            return list(self.options).index(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.options):
            return value
        raise TypeError(f"one of {', '.join(map(repr, self.options))}, or its place from 0")

    def same(self, one: Any, other: Any) -> bool:
        """Whether two places are the same."""
        return one == other

    def words(self, value: int) -> str:
        """The option at a place."""
        return f"“{self.options[value].rstrip('.')}”"

    def feedback(self, given: str | None) -> tuple[bool, str]:
        """Whether the option with the letter `given` is right, and what to say about it."""
        try:
            place = self.read(given)
        except ValueError as error:
            return False, str(error)
        note = self.notes[place] if self.notes else ""
        if place == self.right:
            return True, f"{note} {self.why}".strip()
        return False, f"Not {_LETTERS[place]}). {note or 'Look again.'}"

    def input(self, label: str, value: str | None = None) -> Any:
        """The widget to answer with."""
        return forms.radio(lettered(self.options), _LETTERS[: len(self.options)], label, value)


@dataclass(frozen=True)
class Order:
    """Options to put in order; one types their letters, `b a c`. It is asked in predictions only."""

    question: str  # says what comes first
    options: Sequence[str]
    why: str = ""
    unit = ""

    def read(self, given: str | None) -> list[int]:
        """The places in the order of the letters `given`."""
        letters = re.sub(r"[\s,;>)]+", "", given or "").lower()
        if sorted(letters) != list(_LETTERS[: len(self.options)]):
            raise ValueError(f"Type each letter once, as in: {' '.join(_LETTERS[len(self.options) - 1 :: -1])}")
        return [_LETTERS.index(letter) for letter in letters]

    def measured(self, value: Any) -> list[int]:
        """The places in the order that a run showed, given as the texts of the options."""
        if isinstance(value, str) or not hasattr(value, "__iter__") or sorted(value) != sorted(self.options):
            raise TypeError(f"{', '.join(map(repr, self.options))} in the order that was measured")
        return [list(self.options).index(option) for option in value]

    def same(self, one: Any, other: Any) -> bool:
        """Whether two orders are the same."""
        return one == other

    def words(self, value: list[int]) -> str:
        """The options in an order."""
        return ", ".join(self.options[place] for place in value)

    def input(self, label: str, value: str | None = None) -> Any:
        """The widget to answer with."""
        return forms.text("Order", "the letters, as in: b a c", label, value)


def reads(one: Any, given: str | None) -> bool:
    """Whether the text `given` answers the question at all."""
    try:
        one.read(given)
    except ValueError:
        return False
    return True


KINDS = {"number": Number, "choice": Choice, "order": Order}
Asked = Number | Choice | Order


def recognizable(tolerance: float) -> float:
    """How far what was typed may be off a wrong formula's number: room for rounding, also where an answer is exact."""
    return max(tolerance, 0.005)


def lettered(options: Sequence[str]) -> list[str]:
    """Options with their letters."""
    return [f"{letter}) {option}" for letter, option in zip(_LETTERS, options, strict=False)]


def heading(asked: Asked, number: str = "") -> list[page.Part]:
    """A question as it is read; a form adds the options by itself."""
    return [page.paragraph(f"{number}{asked.question}{f' (in {asked.unit})' if asked.unit else ''}")]


def option_lines(asked: Asked) -> list[page.Part]:
    """The options with their letters."""
    return [page.paragraph(line, indent=3) for line in lettered(asked.options)]
