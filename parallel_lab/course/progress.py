"""The learner's progress: one JSON file in the learner's own folder, written atomically, shared by all notebooks.

The environment variable PARALLEL_LAB_PROGRESS names the file. Where it is not set, the file is `progress.json` in the
course's folder: the nearest one, from the working folder upwards, that has an `exercises` folder with notebooks. Where
there is none, it lies in the working folder.

Two notebooks may write at the same time: each update locks, reads, changes and replaces the file. A file that cannot be
read is set aside as `progress.json.damaged-<n>`, never overwritten. Grading must not fail because a disk is full, so
`update` returns a warning instead of raising.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parallel_lab.course import page

try:
    import fcntl
except ImportError:  # Windows: no lock; replacing the file is still atomic
    fcntl = None

VARIABLE = "PARALLEL_LAB_PROGRESS"
KINDS = ("exercises", "quizzes")
Entries = dict[str, dict[str, dict[str, Any]]]


def home(start: Path | None = None) -> Path:
    """The nearest folder from `start` (the working folder) upwards with notebooks in `exercises`, or `start`."""
    start = start or Path.cwd()
    for folder in (start, *start.parents):
        if any((folder / "exercises").glob("*.ipynb")):
            return folder
    return start


def location() -> Path:
    """Where progress is kept; the file need not exist yet."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else home() / "progress.json"


def read(file: Path | None = None) -> Entries:
    """What is recorded, by kind and name; empty where nothing is, or where the file cannot be read."""
    try:
        return _parse((file or location()).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {kind: {} for kind in KINDS}


def update(kind: str, name: str, change: Callable[[dict[str, Any]], dict[str, Any]], file: Path | None = None) -> str:
    """Replaces the entry `name` of `kind` by `change(entry)`.

    Args:
        kind: `exercises` or `quizzes`.
        name: of the exercise or the self-check.
        change: gets an empty dict the first time.
        file: the learner's file by default.

    Returns:
        A warning for the learner; empty if all went well.
    """
    file = file or location()
    try:
        with _locked(file):
            entries, said = _load_or_set_aside(file)
            entries[kind][name] = change(entries[kind].get(name, {}))
            replace(file, json.dumps({"version": 1, **entries}, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
            return said
    except OSError as error:
        return f"Progress was not saved: {file}: {error.strerror or error}."


def record_exercise(name: str, passed: int, total: int) -> str:
    """Counts one check of exercise `name` that passed `passed` of `total` tests; returns a warning or nothing.

    What was once solved stays solved; the best score is kept.
    """

    def change(entry: dict[str, Any]) -> dict[str, Any]:
        best = max(entry.get("best", 0.0), passed / total)
        return entry | {"best": best, "last": passed / total, "checks": entry.get("checks", 0) + 1, "when": _today()}

    return update("exercises", name, change)


def record_hint(name: str, shown: int) -> str:
    """Remembers that `shown` hints of exercise `name` were seen; returns a warning or nothing."""
    return update("exercises", name, lambda entry: entry | {"hints": max(shown, entry.get("hints", 0))})


def record_quiz(name: str, right: int, total: int) -> str:
    """Notes that `right` of `total` questions of self-check `name` are answered; returns a warning or nothing."""

    def change(entry: dict[str, Any]) -> dict[str, Any]:
        return {"best": max(entry.get("best", 0.0), right / total), "when": _today()}

    return update("quizzes", name, change)


def state(entry: dict[str, Any]) -> str:
    """An entry in a word or two: `solved`, `started, 60 %`, `not started`."""
    if not entry or "best" not in entry:
        return "not started"
    return "solved" if entry["best"] >= 1 else f"started, {entry['best']:.0%}".replace("%", " %")


@dataclass(frozen=True)
class ProgressTable:
    """A table to show in a cell or a terminal; needs no widgets."""

    rows: list[tuple[str, ...]] = field(default_factory=list)  # (kind, name, state, checks, hints, when) of each entry
    file: Path = Path("progress.json")  # where it was read
    head = ("kind", "name", "state", "checks", "hints", "last")

    @property
    def place(self) -> str:
        """The file, seen from the working folder if it lies in the course: a stored output is the same anywhere."""
        return os.path.relpath(self.file) if self.file.is_relative_to(home()) else str(self.file)

    def _repr_html_(self) -> str:
        body = page.table(self.head, self.rows) if self.rows else page.paragraph("Nothing solved yet.")
        return page.box(
            [page.paragraph("Your progress", "head"), body, page.paragraph(self.place, "small")], "Progress"
        )

    def __repr__(self) -> str:
        return f"{page.columns(self.head, self.rows) if self.rows else 'Nothing solved yet.'}\n{self.place}"


def progress_table(file: Path | None = None) -> ProgressTable:
    """The learner's progress, exercises first."""
    file = file or location()
    entries = read(file)
    return ProgressTable([_row(kind, name, entry) for kind in KINDS for name, entry in entries[kind].items()], file)


def _row(kind: str, name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    word = {"exercises": "exercise", "quizzes": "self-check"}[kind]
    return (
        word,
        name,
        state(entry),
        str(entry.get("checks", "")),
        str(entry.get("hints", "")),
        str(entry.get("when", "")),
    )


def _today() -> str:
    return datetime.now(UTC).astimezone().date().isoformat()


def _parse(text: str) -> Entries:
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    found = {kind: data.get(kind, {}) for kind in KINDS}
    for group in found.values():
        if not isinstance(group, dict) or not all(isinstance(entry, dict) for entry in group.values()):
            raise ValueError("an entry is not an object")
    return found


def _load_or_set_aside(file: Path) -> tuple[Entries, str]:
    """The entries in `file` and nothing to say, or no entries and where the damaged file went."""
    try:
        return _parse(file.read_text(encoding="utf-8")), ""
    except FileNotFoundError:
        return {kind: {} for kind in KINDS}, ""
    except ValueError:  # not UTF-8, not JSON, or not ours
        aside = next(path for n in range(1, 10**6) if not (path := Path(f"{file}.damaged-{n}")).exists())
        os.replace(file, aside)
        return {
            kind: {} for kind in KINDS
        }, f"The progress file was damaged; it is kept as {aside.name}, and a new one was begun."


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    # A lock file of its own: the progress file is replaced, and a lock on it would go with the old one.
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{file}.lock", "a") as handle:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def replace(file: Path, text: str) -> None:
    """Writes `text` to `file` so that a reader sees the old or the new text and never a part.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name + ".", suffix=".new")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
