"""What ladders and debugging rounds share: what comes in its turn, and earlier rounds beside the one that has ended."""

from collections.abc import Callable, Iterable
from random import Random
from typing import TypeVar

from parallel_lab.course import progress
from parallel_lab.course.events import logged
from parallel_lab.interview.memory import replay
from parallel_lab.interview.words import say
from parallel_lab.trace.units import format_share

T = TypeVar("T")
MINUTES = 15  # that a debugging round is meant to take


def in_turn(found: Iterable[T], key: Callable[[T], str], dice: Random) -> list[T]:
    """Shuffled, what was never answered first, then what is due, then what is due soonest; `key` is that of its log."""
    reviews, now, shuffled = progress.read()["reviews"], progress.now(), list(found)
    dice.shuffle(shuffled)

    def turn(one: T) -> tuple[int, float]:
        memory = replay(logged(reviews, key(one)))
        if memory is None:
            return 0, 0.0
        return (1, 0.0) if memory.due <= now else (2, memory.due.timestamp())

    return sorted(shuffled, key=turn)


def before(kind: str, key: str, language: str) -> str:
    """How many rounds of this kind came before the one of `key`, and their best share; empty where there is none."""
    reports = [one for at, one in progress.read()["rounds"].items() if one.get("kind") == kind and at < key]
    if not reports:
        return ""
    best = max(one["points"] / one["most"] for one in reports)
    return say("kept.before", language, count=len(reports), best=format_share(best))
