"""What a chapter asks of a learner before an interview, cut into portions in the order in which they pay.

The first page and the questions come first, then formulas, numbers and gaps, then the text of the chapter with
mechanisms and drills, then exercises, then follow-ups. What was solved already is left out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from parallel_lab.course import progress, workspace
from parallel_lab.course.chapters import TITLES, quizzes
from parallel_lab.course.events import Entry
from parallel_lab.course.questions import index
from parallel_lab.course.tasks import Task, tasks
from parallel_lab.interview.memory import good_path
from parallel_lab.interview.queue import TIERS, Item

# The kinds of portions, what pays most first; `tier-0` to `tier-3` are those of the queue.
ROUNDS = (("page", "tier-0"), ("tier-1", "gaps"), ("text", "tier-2"), ("exercises",), ("tier-3",))
LEVELS = tuple(kind for kinds in ROUNDS for kind in kinds)
FAILED = 1 / 0.9  # one in ten is forgotten when it is due, and takes one more
_HEAD = 5000
PAGE_MINUTES, TEXT_MINUTES = 10, 80  # where the notebook is not at hand
_MINUTES = re.compile(r"\*\*Minutes\*\*: (\d+) for the page, (\d+) for the")


@dataclass(frozen=True)
class Portion:
    """A piece of work of one chapter.

    Attributes:
        level: The place of its kind in `LEVELS`.
        chapter: Two digits.
        names: What it holds: keys of atoms and drills, names of exercises; nothing for a text.
        seconds: How long it takes once.
        asked: Whether it is asked again later.
    """

    level: int
    chapter: str
    names: tuple[str, ...]
    seconds: float
    asked: bool = False

    @property
    def kind(self) -> str:
        """`page`, `tier-0`, `gaps`, ..."""
        return LEVELS[self.level]

    def cost_s(self, days: int) -> float:
        """How long it takes until the date, reviews included, if it is begun `days` before."""
        return self.seconds * (1 + len(good_path(days)) * FAILED) if self.asked else self.seconds


def portions(everything: Iterable[Item], entries: Mapping[str, Mapping[str, Entry]]) -> list[Portion]:
    """All that is not done, what pays most first; within a round the chapters with most questions come first."""
    new = [item for item in everything if item.memory is None]
    open_tasks = [t for t in tasks().values() if not progress.solved(entries["exercises"].get(t.name, {}))]
    read = {name[:2] for name in quizzes() if progress.solved(entries["quizzes"].get(name, {}))}
    weight = {number: sum(q.chapter == number for q in index().values()) for number in TITLES}
    found = [portion for number in TITLES for portion in _of_chapter(number, new, open_tasks, number in read)]
    rounds = {kind: place for place, kinds in enumerate(ROUNDS) for kind in kinds}
    return sorted(found, key=lambda one: (rounds[one.kind], -weight[one.chapter], one.chapter, one.level))


def _of_chapter(number: str, new: Iterable[Item], open_tasks: Iterable[Task], read: bool) -> Iterator[Portion]:
    page, whole = minutes_of(number)
    if not read:
        yield Portion(LEVELS.index("page"), number, (), 60 * page)
        yield Portion(LEVELS.index("text"), number, (), 60 * (whole - page))
    for tier, kinds in enumerate(TIERS):
        if own := [item for item in new if item.chapter == number and item.kind in kinds]:
            keys, seconds = tuple(item.key for item in own), sum(item.seconds for item in own)
            yield Portion(LEVELS.index(f"tier-{tier}"), number, keys, seconds, asked=True)
    for task in open_tasks:
        if task.chapter == number:
            yield Portion(LEVELS.index("gaps" if task.gap else "exercises"), number, (task.name,), 60 * task.minutes)


@cache
def minutes_of(number: str) -> tuple[int, int]:
    """How long the first page and the whole of a chapter take, as its notebook says."""
    for file in (workspace.root() / "notebooks").glob(f"{number}_*.ipynb"):
        with file.open(encoding="utf-8") as notebook:
            head = notebook.read(_HEAD)  # the first cell; the whole is megabytes of pictures
        if found := _MINUTES.search(head):
            return int(found[1]), int(found[2])
    return PAGE_MINUTES, TEXT_MINUTES
