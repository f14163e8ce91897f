"""A number with its reason: a tree of terms, each with unit, formula and source, whose sums are checked when made.

    step = total("step", [Term("compute", 1.2, "s", "FLOPs / (share x peak)"), Term("bubble", 0.3, "s")])
    step["bubble"].value            # 0.3
    print(step.tree())              # the number, and of what it is made

A term that has parts is their sum, or the largest of them (`rule="max"`), or something that its formula says of them
(`rule="other"`). A sum that is wrong cannot be made, so a tree that prints is a tree that adds up.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from parallel_lab.trace.units import format_bytes, format_seconds, format_share

Rule = Literal["sum", "max", "other"]
_TOLERANCE = 1e-9
_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Term:
    """A number, and why it is what it is.

    Attributes:
        name: what it counts, in a word or three.
        value: the number, in `unit`.
        unit: "B", "s", "share", or any other word, "" for a pure number.
        formula: how it comes from its parts, or from what no part shows.
        source: paper and year, or what was measured.
        parts: the terms that it is made of.
        rule: how: their "sum", the "max" of them, or "other", which `formula` then says.

    Raises:
        ValueError: the value is no number, two parts share a name, or the parts do not make the value.
    """

    name: str
    value: float
    unit: str = ""
    formula: str = ""
    source: str = ""
    parts: tuple["Term", ...] = ()
    rule: Rule = "sum"

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise ValueError(f"{self.name} is no number")
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name} has two parts of one name: {', '.join(names)}")
        if not self.parts or self.rule == "other":
            return
        if any(part.unit != self.unit for part in self.parts):
            raise ValueError(f"{self.name} is in {self.unit!r}, and a part of it is in another unit")
        made = math.fsum(part.value for part in self.parts)
        if self.rule == "max":
            made = max(part.value for part in self.parts)
        if not math.isclose(made, self.value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise ValueError(f"{self.name} is {self.value:g}, and the {self.rule} of its parts is {made:g}")

    def __getitem__(self, name: str) -> "Term":
        """The part of that name; `"activations/scores"` goes down two steps.

        Raises:
            KeyError: there is none; the message lists those that there are.
        """
        first, _, rest = name.partition("/")
        for part in self.parts:
            if part.name == first:
                return part[rest] if rest else part
        known = ", ".join(part.name for part in self.parts) or "none"
        raise KeyError(f"{self.name} has no part {first!r}; it has {known}")

    def __iter__(self) -> Iterator["Term"]:
        return iter(self.parts)

    def find(self, name: str) -> "Term | None":
        """The first term of that name in the tree, this one included; None where there is none."""
        if self.name == name:
            return self
        return next((found for part in self.parts if (found := part.find(name))), None)

    def get(self, name: str) -> float:
        """The value of a part, or 0 where the tree has none of that name."""
        found = self.find(name)
        return found.value if found else 0.0

    @property
    def text(self) -> str:
        """The value with its unit, as people read it."""
        return text_of(self.value, self.unit)

    def tree(self, depth: int | None = None) -> str:
        """The number, its formula and source, and indented below it the same of its parts, `depth` steps down."""
        return "\n".join(self._lines("", depth))

    def _lines(self, indent: str, depth: int | None) -> Iterator[str]:
        why = f"  = {self.formula}" if self.formula else f"  = the {self.rule} of" if self._says_rule else ""
        yield f"{indent}{self.name}: {self.text}{why}" + (f"  [{self.source}]" if self.source else "")
        if depth == 0:
            return
        for part in self.parts:
            yield from part._lines(indent + "  ", None if depth is None else depth - 1)

    @property
    def _says_rule(self) -> bool:
        return bool(self.parts) and self.rule != "other"


def total(name: str, parts: Iterable[Term], *, formula: str = "", source: str = "") -> Term:
    """The sum of `parts`; those that are 0 are left out."""
    kept = tuple(part for part in parts)
    unit = kept[0].unit if kept else ""
    kept = tuple(part for part in kept if part.value)
    return Term(name, math.fsum(part.value for part in kept), unit, formula, source, kept)


def largest(name: str, parts: Iterable[Term], *, formula: str = "", source: str = "") -> Term:
    """The largest of `parts`, of which one is needed."""
    kept = tuple(parts)
    return Term(name, max(part.value for part in kept), kept[0].unit, formula, source, kept, "max")


def named(term: Term, name: str) -> Term:
    """The same term under another name."""
    return replace(term, name=name)


def text_of(value: float, unit: str) -> str:
    """A number with its unit: bytes and seconds as everywhere in the course, large numbers with k, M, G, T, P."""
    if unit == "B":
        return format_bytes(value)
    if unit == "s":
        return format_seconds(value)
    if unit == "share":
        return format_share(value)
    scale, letter = next(((size, letter) for size, letter in _LARGE if abs(value) >= size), (1.0, ""))
    return f"{value / scale:.4g} {letter}{unit}".rstrip()
