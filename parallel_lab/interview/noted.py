"""What came of one turn of an interview, and what a plugged-in interviewer may think of it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parallel_lab.course.events import AGAIN, GOOD, HARD
from parallel_lab.interview.rounds import Turn
from parallel_lab.interview.words import say

STRONG, PARTLY = 0.75, 0.4  # results from which an answer is called so


class Opinion(NamedTuple):
    """What a plugged-in interviewer thinks of an answer aloud: keys of the points that were said, and a remark."""

    ticked: Collection[str] = ()
    said: str = ""


Interviewer = Callable[[Turn, str], Opinion | None]


def opinion_of(interviewer: Interviewer, turn: Turn, given: str, language: str) -> Opinion:
    """What an interviewer thinks of an answer; if it fails, its remark says so."""
    try:
        found = interviewer(turn, given) or Opinion()
    except Exception as error:  # a foreign function: whatever it raises, the interview goes on
        return Opinion((), say("mock.interviewer-failed", language, why=f"{type(error).__name__}: {error}"))
    return found._replace(said=say("mock.interviewer-says", language, said=found.said)) if found.said else found


@dataclass
class Note:
    """What came of one turn; kept in the report."""

    turn: Turn
    result: float = 0.0
    used_s: float = 0.0
    ticked: list[str] = field(default_factory=list)
    confidence: float | None = None
    tries: int = 0

    @property
    def word(self) -> str:
        """`strong`, `partly` or `missed`."""
        return "strong" if self.result >= STRONG else "partly" if self.result >= PARTLY else "missed"

    @property
    def rating(self) -> int:
        """What memory is told: good, hard or again."""
        return {"strong": GOOD, "partly": HARD, "missed": AGAIN}[self.word]

    def record(self) -> dict[str, Any]:
        """The note as JSON holds it."""
        turn = self.turn
        points = {point.key: point.key in self.ticked for point in turn.points}
        kept = {
            "part": turn.part,
            "kind": turn.kind,
            "key": turn.key,
            "chapter": turn.chapter,
            "ask": turn.title or turn.spoken,
        }
        sure = {} if self.confidence is None else {"confidence": self.confidence}
        return {**kept, "result": self.result, "used_s": round(self.used_s), "points": points, **sure}
