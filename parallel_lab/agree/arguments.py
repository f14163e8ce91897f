"""Arguments that many functions take: whole numbers, numbers, learning rates. Each has one way to be wrong."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

from torch import Tensor


def no_positional(name: str, extra: tuple, usage: str) -> None:
    """Refuses what `name` caught in its `*extra`, as a plain `*` would; `usage` is how its arguments are written.

    Raises:
        TypeError: an argument was given without its name.
    """
    if extra:
        kinds = ", ".join(type(each).__name__ for each in extra)
        raise TypeError(f"{name} got an argument without its name ({kinds}): write {name}({usage})")


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value`, if it is a whole number of at least `least`.

    Raises:
        TypeError: it is no int (a bool is none). ValueError: it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} ({type(value).__name__}): expected a whole number of at least {least}")
    if value < least:
        raise ValueError(f"{name}={value}: expected at least {least}")
    return value


def number(name: str, value: Any) -> float:
    """`value`, if it is a finite number of at least 0; a tensor of one element counts as a number.

    Raises:
        TypeError: it is no number. ValueError: it is negative, infinite or NaN.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} ({type(value).__name__}): expected a number, as in {name}=0.1")
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name}={value!r}: expected a finite number of at least 0")
    return float(value)


def check_rate(settings: dict[str, Any]) -> None:
    """Looks at the learning rate in `settings`, which are an optimizer's.

    Raises:
        TypeError: it is no number.
        ValueError: it is below 0, or not finite.
    """
    if "lr" in settings:
        number("lr", settings["lr"])


def rate_problem(groups: Iterable[dict[str, Any]]) -> Exception | None:
    """What is wrong with the learning rates of an optimizer's groups; None if nothing is."""
    try:
        for group in groups:
            check_rate(group)
    except (TypeError, ValueError) as error:
        return error
    return None
