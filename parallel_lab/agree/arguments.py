"""Arguments that many functions take: whole numbers, numbers, learning rates. Each has one way to be wrong."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from math import isfinite
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def keyword_only(*caught: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Has a function refuse an argument without its name as its own `*` would, but say how the call is written.

    `caught` are names that the function catches in its `**`, to be said as well.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = signature(function).parameters.values()
        places = [each.name for each in parameters if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
        keywords = [*caught, *(each.name for each in parameters if each.kind is Parameter.KEYWORD_ONLY)]

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            if extra := args[len(places) :]:
                method = places[0] == "self"
                name = type(args[0]).__name__ if method else function.__name__
                kinds = ", ".join(type(each).__name__ for each in extra)
                usage = ", ".join([*places[method:], *(f"{keyword}=..." for keyword in keywords)])
                raise TypeError(f"{name} got an argument without its name ({kinds}): write {name}({usage})")
            return function(*args, **kwargs)

        return checked

    return decorate


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value`; refuses what is no int (a bool is none), or below `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} ({type(value).__name__}): expected a whole number of at least {least}")
    if value < least:
        raise ValueError(f"{name}={value}: expected at least {least}")
    return value


def number(name: str, value: Any) -> float:
    """`value`, also that of a tensor of one element; refuses what is no number, negative, infinite or NaN."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} ({type(value).__name__}): expected a number, as in {name}=0.1")
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name}={value!r}: expected a finite number of at least 0")
    return float(value)


def check_rate(settings: dict[str, Any]) -> None:
    """Refuses a learning rate in `settings`, those of an optimizer or of one of its groups, as `number` does."""
    if "lr" in settings:
        number("lr", settings["lr"])
