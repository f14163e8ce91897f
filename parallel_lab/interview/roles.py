"""Roles and lengths of a mock interview, as `roles.yaml` has them: who is asked about what, and in which rounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.course.typed import named

_FILE = files("parallel_lab.interview").joinpath("roles.yaml")
ROUNDS = ("warm-up", "deep", "number", "log", "code", "design")


@dataclass(frozen=True)
class Round:
    """A part of an interview: its kind, one of `ROUNDS`, its minutes, and how many follow-ups it has at most."""

    kind: str
    minutes: float
    follow_ups: int = 0


@dataclass(frozen=True)
class Weight:
    """How often something comes up against the rest, and why, in both languages."""

    weight: float
    why: str
    zh: str


@dataclass(frozen=True)
class Role:
    """Who is interviewed.

    Attributes:
        title: By language, as a reader sees it.
        topics: By chapter, its two digits.
        questions: By card; they come up more often than their chapter says.
    """

    name: str
    title: Mapping[str, str]
    topics: Mapping[str, Weight]
    questions: Mapping[str, Weight]

    def weight(self, chapter: str) -> float:
        """How often the chapter comes up; 0 where it is not asked."""
        return self.topics[chapter].weight if chapter in self.topics else 0.0


@dataclass(frozen=True)
class Design:
    """What the design round plans: a model on accelerators of a cluster, with so many sequences a step."""

    model: str
    cluster: str
    gpus: int
    batch: int

    @property
    def key(self) -> str:
        """What progress keeps it under."""
        return f"design/{self.model}-{self.cluster}-{self.gpus}"


@cache
def _read() -> Mapping[str, Any]:
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


@cache
def roles() -> Mapping[str, Role]:
    """All roles by name."""
    return {name: _role(name, row) for name, row in _read()["roles"].items()}


def _role(name: str, row: Mapping[str, Any]) -> Role:
    topics, questions = ({key: Weight(**one) for key, one in row[what].items()} for what in ("topics", "questions"))
    return Role(name, {"en": row["en"], "zh": row["zh"]}, topics, questions)


def role_named(name: str) -> Role:
    """The role of this name.

    Raises:
        UnknownName: there is none; this KeyError names the nearest ones.
    """
    return named("role", name, roles())


@cache
def forms() -> Mapping[int, tuple[Round, ...]]:
    """The rounds of an interview by its minutes."""
    return {minutes: tuple(Round(**row) for row in rows) for minutes, rows in _read()["forms"].items()}


def form_of(minutes: int) -> tuple[Round, ...]:
    """The rounds of an interview of `minutes`.

    Raises:
        ValueError: there is no interview of this length.
    """
    if minutes not in forms():
        raise ValueError(f"there is no interview of {minutes!r} minutes: choose {', '.join(map(str, forms()))}")
    return forms()[minutes]


@cache
def designs() -> tuple[Design, ...]:
    """What the design round may plan."""
    return tuple(Design(**row) for row in _read()["designs"])
