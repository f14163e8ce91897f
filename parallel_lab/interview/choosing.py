"""What an interview asks: drawn by the role's weights, and nothing that is not due again.

What was asked in an interview, a review, a drill or an exercise comes back when it is due by `memory`; where nothing of
a kind is due, what comes due first is asked. What interviews have asked often is drawn less often.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from parallel_lab.clinic import CASES, CAUSES
from parallel_lab.clinic.job import Case
from parallel_lab.course import progress
from parallel_lab.course.drills import problems
from parallel_lab.course.drills.engine import Problem
from parallel_lab.course.questions import ask, index
from parallel_lab.course.tasks import Task, tasks
from parallel_lab.interview.atoms import Atom, atoms_of
from parallel_lab.interview.feeds import log_of
from parallel_lab.interview.memory import replay
from parallel_lab.interview.roles import Design, Role, designs
from parallel_lab.interview.rounds import POINTS

_WORD = re.compile(r"[a-z0-9-]{4,}|[\u4e00-\u9fff]{2}")


@dataclass
class Chooser:
    """Draws questions for a role.

    Attributes:
        role: Whose weights count.
        dice: What it draws with.
        at: The time that is "now" for what is due.
        asked: Keys that this interview has asked already.
    """

    role: Role
    dice: Random
    at: datetime
    asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        entries = progress.read()
        self._reviews: Mapping[str, Any] = entries["reviews"]
        turns = [turn for one in entries["interviews"].values() for turn in one.get("turns", ())]
        self._often = Counter(turn.get("key", "") for turn in turns)

    def card(self) -> str:
        """A question whose card is written: `E5`."""
        weights = {}
        for name, question in index().items():
            extra = self.role.questions[name].weight if name in self.role.questions else 0.0
            if (weight := self.role.weight(question.chapter) + extra) and question.kind != "code":
                weights[name] = weight
        count = Counter(index()[name].chapter for name in weights)
        written = {name: weight for name, weight in weights.items() if ask(name).status}
        shares = {f"{name}/definition": weight / count[index()[name].chapter] for name, weight in written.items()}
        return self._draw(shares).removesuffix("/definition")

    def drill(self) -> Problem:
        """A problem with numbers."""
        known = {f"drill/{name}": one for name, one in problems().items()}
        return known[self._draw(self._by_chapter({key: one.chapter for key, one in known.items()}))]

    def case(self) -> Case:
        """A broken job."""
        known = {f"clinic/{number}": case for number, case in CASES.items()}
        chapters = {key: CAUSES[case.cause].chapter for key, case in known.items()}
        return known[self._draw(self._by_chapter(chapters, rest=1.0))]

    def task(self, minutes: float) -> Task:
        """A gap of a chapter that takes `minutes` at most."""
        known = {f"exercise/{name}": one for name, one in tasks().items() if one.gap and one.minutes <= minutes}
        return known[self._draw(self._by_chapter({key: one.chapter for key, one in known.items()}, rest=0.1))]

    def design(self) -> Design:
        """A model to lay out."""
        known = {one.key: one for one in designs()}
        return known[self._draw(dict.fromkeys(known, 1.0))]

    def dig(self, card: str, missing: Collection[str], missed: str = "") -> tuple[Atom, bool] | None:
        """The next follow-up on a card, and whether it digs where the answer was weak; None if all was asked.

        What an answer left out comes first, in the order of `POINTS`. Then comes what was not shown yet, the card's
        number, its half-truth and its follow-ups: nearest to what was missed last, what is due before what is not.
        """
        left = [atom for atom in atoms_of(card)[1:] if atom.key not in self.asked]
        wanted = [atom for kind in POINTS for atom in left if atom.kind == kind and atom.key in missing]
        if wanted:
            return self._taken(wanted[0]), True
        unseen = [atom for atom in left if atom.kind not in POINTS]
        if not unseen:
            return None
        about = words_of(atom for atom in atoms_of(card) if atom.key == missed)
        near = {atom.key: len(about & words_of([atom])) for atom in unseen}
        chosen = min(unseen, key=lambda atom: (self.resting(atom.key), -near[atom.key]))
        return self._taken(chosen), bool(missed and near[chosen.key])

    def _taken(self, atom: Atom) -> Atom:
        self.asked.add(atom.key)
        return atom

    def resting(self, key: str) -> bool:
        """Whether `key` was answered and is not due yet."""
        return (due := self._due(key)) is not None and due > self.at

    def _due(self, key: str) -> datetime | None:
        state = replay(log_of(key, self._reviews))
        return state.due if state else None

    def _by_chapter(self, chapters: Mapping[str, str], rest: float = 0.0) -> dict[str, float]:
        """The role's weight of each key, shared among those of its chapter; `rest` is that of what has none."""
        count = Counter(chapters.values())
        weights = {key: (self.role.weight(chapter) or rest) / count[chapter] for key, chapter in chapters.items()}
        return {key: weight for key, weight in weights.items() if weight}

    def _draw(self, weights: Mapping[str, float]) -> str:
        """One of the keys, by weight: of those that rest none, unless there is no other."""
        left = [key for key in weights if key not in self.asked] or list(weights)
        fresh = [key for key in left if not self.resting(key)]
        if fresh:
            shares = [weights[key] / (1 + self._often[key]) for key in fresh]
            chosen = self.dice.choices(fresh, shares)[0]
        else:
            chosen = min(left, key=lambda key: (self._due(key) or self.at, key))
        self.asked.add(chosen)
        return chosen


def words_of(some: Iterable[Atom]) -> set[str]:
    """The longer words of atoms, by which one is near another."""
    return {word for atom in some for word in _WORD.findall(f"{atom.ask} {atom.answer}".lower())}
