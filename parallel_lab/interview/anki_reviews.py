"""What was reviewed in Anki, taken into the course's progress; only who asks for it gets it.

A package that was exported with its scheduling holds the log of reviews as a SQLite table. Each review becomes an event
of the same time and rating in the log of the atom; taking the same file twice adds nothing.
"""

import json
import sqlite3
import tempfile
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from parallel_lab.course import events, progress
from parallel_lab.interview.anki import guid
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.vocabulary import terms

_QUERY = """SELECT notes.guid, revlog.id, revlog.ease FROM revlog JOIN cards ON cards.id = revlog.cid
JOIN notes ON notes.id = cards.nid WHERE revlog.ease BETWEEN 1 AND 4 ORDER BY revlog.id"""
_NEW = "collection.anki21b"  # compressed in a way that Python 3.13 and earlier cannot read
_EXPORT = "in Anki choose File, Export, tick “Include scheduling information” and “Support older Anki versions”"


def import_reviews(file: str | Path) -> tuple[int, int]:
    """Takes the reviews of a package (`.apkg`, `.colpkg`) that Anki exported into the progress of the course.

    Returns:
        How many reviews of how many atoms the file has.

    Raises:
        ValueError: it is no such package, has no reviews of the course's notes, or progress could not be saved.
    """
    logs = reviews(file)
    if not logs:
        raise ValueError(f"{file}: it has no reviews of the course's notes; {_EXPORT}")
    with tempfile.TemporaryDirectory() as folder:
        theirs = Path(folder, "reviews.json")
        theirs.write_text(json.dumps({"reviews": {key: {"log": log} for key, log in logs.items()}}), encoding="utf-8")
        if warning := progress.merge(theirs):
            raise ValueError(warning)
    return sum(map(len, logs.values())), len(logs)


def reviews(file: str | Path) -> dict[str, list[events.Event]]:
    """The reviews of the course's notes in a package, by the key of the atom; what is not ours is left out.

    Raises:
        ValueError: it is no package of Anki, or one that cannot be read here.
    """
    keys = {guid(key.removesuffix("/definition")): key for key in [*atoms(), *(term.key for term in terms())]}
    logs: dict[str, list[events.Event]] = {}
    for note, at_ms, rating in _rows(Path(file)):
        if key := keys.get(note):
            logs.setdefault(key, []).append(events.event(datetime.fromtimestamp(at_ms / 1000, UTC), rating, "self"))
    return logs


def _rows(file: Path) -> list[tuple[str, int, int]]:
    """Note, time in milliseconds and rating of each review."""
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file")
    try:
        with zipfile.ZipFile(file) as zipped, tempfile.TemporaryDirectory() as folder:
            names = zipped.namelist()
            if _NEW in names:
                raise ValueError(f"{file}: its format is Anki's newer one, which is not read here; {_EXPORT}")
            inside = next(name for name in ("collection.anki21", "collection.anki2") if name in names)
            database = Path(folder, "collection")
            database.write_bytes(zipped.read(inside))
            with closing(sqlite3.connect(database)) as connection:
                return connection.execute(_QUERY).fetchall()
    except (zipfile.BadZipFile, StopIteration, sqlite3.Error):
        raise ValueError(f"{file}: this is no package of Anki") from None
