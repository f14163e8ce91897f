"""What a learner types: names, and numbers with what a wrong one hints at."""

import difflib
import math
import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_PREFIXES = {**_DECIMAL, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_COMMA = re.compile(r"([-+]?\d+)[,，](\d+(?:[eE][-+]?\d+)?(?:\s*[^\d\s]+)?)")  # one that stands for a point
_OF_SECONDS = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s]*)")
_TELLING = {2: "", 8: " (bits for bytes?)", 1000: " (a unit prefix?)", 1024: " (a binary prefix?)"}


class UnknownName(KeyError):
    """There is nothing of this name; the message names the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


def named(what: str, name: str, known: Mapping[str, T]) -> T:
    """The item of `known` that is called `name`; `what` it is begins the message.

    Raises:
        UnknownName: there is none.
    """
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4) or list(known)[:3]
        raise UnknownName(f"there is no {what} {name!r}; the nearest are {', '.join(near)}")
    return known[name]


def parse_number(text: str, unit: str = "") -> float:
    """The number that a learner typed, in `unit`: `1.5e6`, `1,500,000`, `1 500 000`, `1.5 MB`, `2/3`, `75 %`.

    A unit typed with another prefix is converted. A comma or a period behind it all is no part of the number.

    Raises:
        ValueError: the text is no number, or has another unit.
    """
    bare = text.strip().rstrip(",.;，。； ")
    compact = re.sub(r"(?<=\d)[,_\u202f\u00a0 '](?=\d{3}(?!\d))", "", bare).replace("−", "-")
    if fraction := re.fullmatch(r"(-?\d+)\s*/\s*(\d*[1-9]\d*)", compact):
        return int(fraction[1]) / int(fraction[2])
    match = _NUMBER.fullmatch(compact)
    if match is None and (comma := _COMMA.fullmatch(compact)):
        raise ValueError(f"{text!r} is not a number here: the decimal sign is a point, {comma[1]}.{comma[2]}.")
    if match is None:
        raise ValueError(f"{text!r} is not a number: write 1500000, 1.5e6 or 1,500,000.")
    return float(match[1]) * _scale(match[2], unit, text)


def _scale(typed: str, unit: str, text: str) -> float:
    """What one of the typed unit is in the unit that was asked for."""
    if typed in ("", unit):
        return 1.0
    if typed == "%" and not unit:
        return 0.01
    prefixes = _OF_SECONDS if unit in [f"{prefix}s" for prefix in _OF_SECONDS] else _PREFIXES
    for wanted, per in prefixes.items():
        base = unit.removeprefix(wanted)
        for prefix, factor in prefixes.items():
            if base and unit == wanted + base and typed.lower() == (prefix + base).lower():
                return factor / per
    raise ValueError(f"{text!r}: the unit asked for is {unit or 'none'}.")


def off_by(value: float, answer: float) -> str:
    """What the wrong number `value` hints at. Any other factor would be the answer, and is not said."""
    if answer == 0 or value == 0:
        return "It is not zero." if answer else "Look again."
    if math.isclose(value, -answer, rel_tol=0.01):
        return "Look at the sign."
    ratio = abs(value / answer)
    way, factor = ("large", ratio) if ratio > 1 else ("small", 1 / ratio)
    for power, units in ((1, "kB or KiB"), (2, "MB or MiB"), (3, "GB or GiB")):
        if math.isclose(factor, 1.024**power, rel_tol=0.002):
            return f"Close: the difference is that between 1000 and 1024 ({units})."
    for known, hint in _TELLING.items():
        if math.isclose(factor, known, rel_tol=0.01):
            return f"Too {way} by a factor of {known}{hint}."
    return f"Too {way}."
