"""What a learner's progress file holds, counted for the page that states it: nothing is rounded up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from parallel_lab.course import progress
from parallel_lab.course.chapters import quizzes
from parallel_lab.course.drills import listed
from parallel_lab.course.events import AGAIN, GOOD, HARD, Entries, Entry, Event, day, logged
from parallel_lab.course.tasks import Task, tasks
from parallel_lab.interview.atoms import atoms


@dataclass(frozen=True)
class Solved:
    """A task that is solved.

    Attributes:
        task: The exercise or gap.
        on: The day, as `2026-11-28`; empty in files from before days were kept.
        checks: How often an answer was checked.
        hints: How many hints were seen.
        clean: Whether the first full check passed, without hints and without a look at the solution.
        solution: `before` or `after` it was solved, if it was looked at; else empty.
    """

    task: Task
    on: str
    checks: int
    hints: int
    clean: bool
    solution: str


def solved_tasks(entries: Entries) -> list[Solved]:
    """The exercises and gaps that are solved, in the order of the course."""
    found = ((name, task, entries["exercises"].get(name, {})) for name, task in tasks().items())
    logs = entries["reviews"]
    return [_solved(task, one, logged(logs, f"exercise/{name}")) for name, task, one in found if progress.solved(one)]


def _solved(task: Task, entry: Entry, log: list[Event]) -> Solved:
    passes = [day(event["at"]) for event in log if event["rating"] >= HARD]
    seen = ("before" if entry.get("solution_first") else "after") if "solution" in entry else ""
    hints = entry.get("hints", 0)
    clean = bool(log) and log[0]["rating"] >= GOOD and not hints and seen != "before"
    return Solved(task, min(passes, default=entry.get("when", "")), entry.get("checks", 0), hints, clean, seen)


def quizzes_done(entries: Entries) -> tuple[int, int]:
    """How many self-checks are answered, and how many there are."""
    names = quizzes()
    return sum(progress.solved(entries["quizzes"].get(name, {})) for name in names), len(names)


def drills_done(entries: Entries) -> tuple[int, int, int, int]:
    """How many drills were right once, how many there are, the right answers, the failures that the log holds."""
    right = [entries["drills"].get(name, {}) for name in listed()]
    failed = sum(e["rating"] == AGAIN for name in listed() for e in logged(entries["reviews"], f"drill/{name}"))
    done = sum(map(progress.solved, right))
    return done, len(listed()), sum(entry.get("right", 0) for entry in right), failed


def atoms_known(entries: Entries) -> tuple[int, int, int, int]:
    """How many atoms were known at the last review, how many there are, the reviews, those judged by oneself."""
    logs = [log for key in atoms() if (log := logged(entries["reviews"], key))]
    events = [event for log in logs for event in log]
    known = sum(log[-1]["rating"] >= GOOD for log in logs)
    return known, len(atoms()), len(events), sum(event["from"] in ("self", "mock") for event in events)


def mocks(entries: Entries) -> list[tuple[str, Mapping]]:
    """The mock interviews in which something was asked, by the time at which they began."""
    return [(key, one) for key, one in sorted(entries["interviews"].items()) if one.get("turns")]


def days(entries: Entries) -> list[str]:
    """The days on which something of all this was recorded, the first one first."""
    return sorted(set(_days(entries)) - {""})


def _days(entries: Entries) -> Iterator[str]:
    for kind in ("exercises", "quizzes", "drills", "cards"):
        yield from (str(entry.get("when", "")) for entry in entries[kind].values())
    for entry in entries["reviews"].values():
        yield from (day(event["at"]) for event in entry.get("log", ()))
    yield from (day(key) for key, _ in mocks(entries))
