"""The learner's progress: one JSON file in the learner's own folder, written atomically, shared by all notebooks.

The environment variable PARALLEL_LAB_PROGRESS names the file. Where it is not set, the file is `work/progress.json` in
the course's folder, from whatever folder it is asked for.

Two notebooks may write at the same time: each update locks, reads, changes and replaces the file. A file that cannot be
read is set aside as `progress.json.damaged-<n>`, never overwritten. Grading must not fail because a disk is full, so
what records returns a warning, or nothing, instead of raising.

Beside what was reached, the kind `reviews` holds a log of what was recalled and when (see `events`): of atoms as
`E5/definition`, of drills as `drill/ring-bytes`, of exercises as `exercise/ring_all_reduce`, of questions of a
self-check as `quiz/02-1`.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from parallel_lab.course import events, workspace

VARIABLE = "PARALLEL_LAB_PROGRESS"
_LOGS = ("sprints", "reviews", "interviews", "preparations", "rounds")
KINDS = ("exercises", "quizzes", "predictions", "cards", "drills", *_LOGS)
_OF_CARDS = {"knew": events.GOOD, "partly": events.HARD, "missed": events.AGAIN}
Entry = dict[str, Any]
Entries = dict[str, dict[str, Entry]]


def location() -> Path:
    """Where progress is kept; the file need not exist yet. One from before there was `work` is moved into it."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    file, old = workspace.work() / "progress.json", workspace.root() / "progress.json"
    if old.exists() and not file.exists():
        with contextlib.suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            old.replace(file)
    return file


def read() -> Entries:
    """What is recorded, by kind and name; empty where nothing is, or where the file cannot be read."""
    try:
        return _load(location())
    except (OSError, ValueError):
        return {kind: {} for kind in KINDS}


def unreadable() -> str:
    """What is wrong with the progress file, in a sentence; empty where it can be read, or is not begun."""
    file = location()
    try:
        _load(file)
    except ValueError:
        return f"{file} is damaged: what is recorded next begins a new file, and this one is kept beside it."
    except OSError as error:
        return f"{file} cannot be read: {error.strerror or error}."
    return ""


def now() -> datetime:
    """The one clock of what is recorded and of what is due."""
    return datetime.now(UTC)


def record_exercise(name: str, share: float, failed: bool = False, steps: int = 0) -> str:
    """Counts one check of exercise `name` that passed `share` of the tests, from 0 to 1; the best one is kept.

    Args:
        name: of the exercise.
        share: of the tests that passed.
        failed: whether a test that ran did not pass; a first step that passes is no failure of the exercise.
        steps: how many of the exercise's steps, from the first on, passed; the most are kept.
    """

    def change(entries: Entries) -> None:
        entry = entries["exercises"].get(name, {})
        new = {"last": share, "checks": entry.get("checks", 0) + 1}
        new |= {"steps": max(steps, entry.get("steps", 0))} if steps else {}
        entries["exercises"][name] = _scored(entry, share) | new
        if failed or share >= 1:
            _see(entries, f"exercise/{name}", "exercise", share >= 1, helped=entry.get("hints", 0) > 0)

    return _save(change)


def record_hint(name: str, shown: int, skipped: int = 0) -> str:
    """Remembers that `shown` hints of exercise `name` were seen, and `skipped` ones of solved steps were not."""

    def change(entry: Entry) -> Entry:
        seen = {"hints": max(shown, entry.get("hints", 0))}
        return entry | seen | ({"skipped": max(skipped, entry.get("skipped", 0))} if skipped else {})

    return _update("exercises", name, change)


def record_solution(name: str) -> str:
    """Remembers when the solution of exercise `name` was first looked at, and whether that was before it was solved."""

    def change(entry: Entry) -> Entry:
        return {"solution": _today(), "solution_first": not solved(entry)} | entry

    return _update("exercises", name, change)


def record_quiz(name: str, share: float, place: int | None = None, right: bool = False) -> str:
    """Notes that `share` of the questions of self-check `name`, from 0 to 1, are answered.

    Args:
        name: as `02_collectives_and_topologies`.
        share: of the questions that are answered.
        place: the question that was answered just now, from 0.
        right: whether it was answered rightly.
    """

    def change(entries: Entries) -> None:
        entries["quizzes"][name] = _scored(entries["quizzes"].get(name, {}), share)
        if place is not None:
            _see(entries, f"quiz/{name[:2]}-{place + 1}", "quiz", right)

    return _save(change)


def record_prediction(name: str, guess: Any, late: bool = False) -> str:
    """Keeps the last `guess` of prediction `name`, anything that JSON can hold.

    One that is `late`, after the answer was shown, takes the place of none that was made in time.
    """

    def change(entry: Entry) -> Entry:
        in_time = "guess" in entry and not entry.get("late")
        return entry if late and in_time else entry | {"guess": guess, "late": late, "when": _today()}

    return _update("predictions", name, change)


def record_card(name: str, known: str) -> str:
    """Keeps how well the question of card `name` was answered, `knew`, `partly` or `missed`."""

    def change(entries: Entries) -> None:
        entries["cards"][name] = entries["cards"].get(name, {}) | {"known": known, "when": _today()}
        _log(entries, f"{name}/definition", events.event(now(), _OF_CARDS[known], "self"))

    return _save(change)


def record_drill(name: str, right: bool = True, confidence: float | None = None) -> str:
    """Counts one right answer to drill `name`, or logs a failure: a wrong number, or the solution asked for."""

    def change(entries: Entries) -> None:
        entry = entries["drills"].get(name, {})
        if right:
            entries["drills"][name] = _scored(entry, 1.0) | {"right": entry.get("right", 0) + 1}
        _see(entries, f"drill/{name}", "drill", right, confidence=confidence)

    return _save(change)


def record_review(key: str, rating: int, source: str, confidence: float | None = None) -> str:
    """Logs that what `key` names was recalled just now.

    Args:
        key: as `E5/definition`, `drill/ring-bytes`, `exercise/ring_all_reduce`.
        rating: 1 (again), 2 (hard), 3 (good) or 4 (easy).
        source: who said so: `self`, `drill`, `exercise`, `quiz`, `mock`, `ladder` or `clinic`.
        confidence: what was stated before the answer, from 0 to 1.

    Raises:
        ValueError: the rating, the source or the confidence is none.
    """
    one = events.event(now(), rating, source, confidence)
    return _save(lambda entries: _log(entries, key, one))


def record_interview(key: str, report: Entry) -> str:
    """Keeps the `report` of a mock interview under its start time."""
    return _update("interviews", key, lambda _: report)


def record_round(key: str, report: Entry) -> str:
    """Keeps the `report` of a round of practice, with its `kind`, time and score, under its start time."""
    return _update("rounds", key, lambda _: report)


def record_preparation(name: str, plan: Entry) -> str:
    """Keeps the plan for the date of an interview; a merge keeps the later one, by its `when`."""
    return _update("preparations", name, lambda _: plan | {"when": now().isoformat()})


def merge(other: Path) -> str:
    """Takes up what another machine's progress file holds: of two scores the better, of two logs the union.

    Returns:
        A warning, or nothing.

    Raises:
        ValueError: `other` is no progress file.
        OSError: it cannot be read.
    """
    if not other.is_file():
        raise ValueError(f"{other}: there is no such file")
    try:
        theirs = _load(other)
    except ValueError:
        raise ValueError(f"{other}: this is no progress file of the course") from None
    return _save(lambda entries: entries.update(events.merged(entries, theirs)))


def _log(entries: Entries, key: str, one: events.Event) -> None:
    entries["reviews"][key] = {"log": [*events.logged(entries["reviews"], key), one]}


def _see(
    entries: Entries,
    key: str,
    source: str,
    passed: bool,
    helped: bool = False,
    confidence: float | None = None,
) -> None:
    """Logs what a machine saw, if it adds anything."""
    at = now()
    if (rating := events.seen(events.logged(entries["reviews"], key), at, passed, helped)) is not None:
        _log(entries, key, events.event(at, rating, source, confidence))


def record_sprint(key: str, report: Entry) -> str:
    """Keeps the `report` of the sprint that began at `key`, a moment; a later report of it replaces the earlier."""
    return _update("sprints", key, lambda _: report)


def _scored(entry: Entry, share: float) -> Entry:
    return entry | {"best": max(entry.get("best", 0.0), share), "when": _today()}


def _today() -> str:
    return events.day(now())


def solved(entry: Entry) -> bool:
    """Whether an exercise or a self-check is solved."""
    return entry.get("best", 0) >= 1


def solved_at(entries: Entries, name: str) -> str:
    """When exercise `name` first passed, as text that sorts by time; a day where the log does not hold the moment."""
    log = events.logged(entries["reviews"], f"exercise/{name}")
    passes = [one["at"] for one in log if one["from"] == "exercise" and one["rating"] > events.AGAIN]
    return min(passes, default=entries["exercises"].get(name, {}).get("when", ""))


def state(entry: Entry) -> str:
    """An entry in a word or two: `solved`, `started, 60 %`, `not started`."""
    if "best" not in entry:
        return "not started"
    return "solved" if solved(entry) else f"started, {100 * entry['best']:.0f} %"


def _update(kind: str, name: str, change: Callable[[Entry], Entry]) -> str:
    """Replaces the entry `name` of `kind` by `change(entry)`; returns a warning for the learner, or nothing."""

    def replaced(entries: Entries) -> None:
        entries[kind][name] = change(entries[kind].get(name, {}))

    return _save(replaced)


def _save(change: Callable[[Entries], None]) -> str:
    """Changes what is recorded by `change(entries)`; returns a warning for the learner, or nothing."""
    file = location()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A lock file of its own: the progress file is replaced, and a lock on it would go with the old one.
        with FileLock(f"{file}.lock"):
            said = ""
            try:
                entries = _load(file)
            except ValueError:  # not UTF-8, not JSON, or not ours
                aside = free(f"{file}.damaged-")
                file.replace(aside)
                entries = _load(file)
                said = f"The progress file was damaged; it is kept as {aside.name}, and a new one was begun."
            change(entries)
            replace(file, json.dumps({"version": 1, **entries}, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
            return said
    except OSError as error:
        return f"Progress was not saved: {file}: {error.strerror or error}."


def _load(file: Path) -> Entries:
    data = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not isinstance(data, dict):
        raise ValueError("not a progress file")
    groups = {kind: {} for kind in KINDS} | {kind: group for kind, group in data.items() if kind != "version"}
    entries = [entry for group in groups.values() if isinstance(group, dict) for entry in group.values()]
    if not all(isinstance(one, dict) for one in [*groups.values(), *entries]):
        raise ValueError("not a progress file")
    return groups


def free(start: str) -> Path:
    """The first of `start` with 1, 2, 3, ... that no file is called."""
    return next(path for n in range(1, 10**6) if not (path := Path(f"{start}{n}")).exists())


def replace(file: Path, data: str | bytes) -> None:
    """Writes `data` to `file` so that a reader sees the old or the new file and never a part.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.name}.") as folder:
            new = Path(folder, file.name)
            with new.open("wb") as stream:
                stream.write(data.encode() if isinstance(data, str) else data)
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(file)
    except OSError as error:  # its own words name a file that the reader never heard of
        raise OSError(error.errno, error.strerror, os.fspath(file)) from error
