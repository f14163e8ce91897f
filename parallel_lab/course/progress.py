"""The learner's progress: one JSON file in the learner's own folder, written atomically, shared by all notebooks.

The environment variable PARALLEL_LAB_PROGRESS names the file. Where it is not set, the file is `work/progress.json` in
the course's folder, from whatever folder it is asked for.

Two notebooks may write at the same time: each update locks, reads, changes and replaces the file. A file that cannot be
read is set aside as `progress.json.damaged-<n>`, never overwritten. Grading must not fail because a disk is full, so
what records returns a warning, or nothing, instead of raising.
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

from parallel_lab.course import workspace

VARIABLE = "PARALLEL_LAB_PROGRESS"
KINDS = ("exercises", "quizzes", "predictions", "cards", "drills", "sprints")
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


def record_exercise(name: str, share: float) -> str:
    """Counts one check of exercise `name` that passed `share` of the tests, from 0 to 1; the best one is kept."""

    def change(entry: Entry) -> Entry:
        return _scored(entry, share) | {"last": share, "checks": entry.get("checks", 0) + 1}

    return _update("exercises", name, change)


def record_hint(name: str, shown: int) -> str:
    """Remembers that `shown` hints of exercise `name` were seen."""
    return _update("exercises", name, lambda entry: entry | {"hints": max(shown, entry.get("hints", 0))})


def record_quiz(name: str, share: float) -> str:
    """Notes that `share` of the questions of self-check `name`, from 0 to 1, are answered."""
    return _update("quizzes", name, lambda entry: _scored(entry, share))


def record_prediction(name: str, guess: Any) -> str:
    """Keeps the last `guess` of prediction `name`, anything that JSON can hold."""
    return _update("predictions", name, lambda entry: entry | {"guess": guess, "when": _today()})


def record_card(name: str, known: str) -> str:
    """Keeps how well the question of card `name` was answered, `knew`, `partly` or `missed`."""
    return _update("cards", name, lambda entry: entry | {"known": known, "when": _today()})


def record_drill(name: str) -> str:
    """Counts one right answer to drill `name`."""
    return _update("drills", name, lambda entry: _scored(entry, 1.0) | {"right": entry.get("right", 0) + 1})


def record_sprint(key: str, report: Entry) -> str:
    """Keeps the `report` of the sprint that began at `key`, a moment; a later report of it replaces the earlier."""
    return _update("sprints", key, lambda _: report)


def _scored(entry: Entry, share: float) -> Entry:
    return entry | {"best": max(entry.get("best", 0.0), share), "when": _today()}


def _today() -> str:
    return datetime.now(UTC).astimezone().date().isoformat()


def solved(entry: Entry) -> bool:
    """Whether an exercise or a self-check is solved."""
    return entry.get("best", 0) >= 1


def state(entry: Entry) -> str:
    """An entry in a word or two: `solved`, `started, 60 %`, `not started`."""
    if "best" not in entry:
        return "not started"
    return "solved" if solved(entry) else f"started, {100 * entry['best']:.0f} %"


def _update(kind: str, name: str, change: Callable[[Entry], Entry]) -> str:
    """Replaces the entry `name` of `kind` by `change(entry)`; returns a warning for the learner, or nothing."""
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
            entries[kind][name] = change(entries[kind].get(name, {}))
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


def replace(file: Path, text: str) -> None:
    """Writes `text` to `file` so that a reader sees the old or the new text and never a part.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.name}.") as folder:
        new = Path(folder, file.name)
        with new.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
