"""An index of samples in a database: which shard a sample lies in, where in it, and what is known of it.

A database answers questions ("the German documents of the validation split, by length") and changes rows without
another program seeing half of it. It is the place for what describes samples. The samples themselves, and tensors, are
long rows of bytes that nobody asks questions about: they stand in shards, and the index says where.

SQLite is a library over one file: many may read, one writes. It relies on the file system's locks, which network file
systems often do not keep, so it is copied to a node's disk and read there; a service (PostgreSQL, a Redis) is for many
that write.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from parallel_lab.systems.storage.formats import positions
from parallel_lab.systems.storage.store import Missing, Store

TABLE = """
CREATE TABLE IF NOT EXISTS samples (
    sample TEXT PRIMARY KEY,
    shard TEXT NOT NULL,
    start INTEGER NOT NULL,
    length INTEGER NOT NULL,
    split TEXT NOT NULL DEFAULT 'train'
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_shard ON samples (shard, start);
CREATE INDEX IF NOT EXISTS by_split ON samples (split);
"""


class Place(NamedTuple):
    """Where a sample lies, and in which split."""

    sample: str
    shard: str
    start: int
    length: int
    split: str = "train"


class Index:
    """The samples of a dataset by name; an SQLite file."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.connection = sqlite3.connect(Path(path))
        self.connection.executescript(TABLE)

    def add(self, places: Iterable[Place]) -> None:
        """Adds all of the places or, on an error, none.

        Raises:
            sqlite3.IntegrityError: a sample is there already.
        """
        with self.connection:  # one transaction
            self.connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", places)

    def where(self, sample: str) -> Place:
        """Where a sample lies.

        Raises:
            Missing: there is none of this name.
        """
        row = self.connection.execute("SELECT * FROM samples WHERE sample = ?", (sample,)).fetchone()
        if row is None:
            raise Missing(sample)
        return Place(*row)

    def of_split(self, split: str) -> list[Place]:
        """The samples of a split, in the order of shards and of places in them: the order to read them in."""
        rows = self.connection.execute("SELECT * FROM samples WHERE split = ? ORDER BY shard, start", (split,))
        return [Place(*row) for row in rows]

    def move(self, samples: Iterable[str], split: str) -> int:
        """Puts samples into another split, all of them or none, and says how many there were; no shard changes."""
        with self.connection:
            rows = [(split, sample) for sample in samples]
            return self.connection.executemany("UPDATE samples SET split = ? WHERE sample = ?", rows).rowcount

    def __len__(self) -> int:
        return self.connection.execute("SELECT count(*) FROM samples").fetchone()[0]

    def close(self) -> None:
        """Closes the file."""
        self.connection.close()


@contextmanager
def index(path: str | PathLike[str]) -> Iterator[Index]:
    """An index while the block runs."""
    one = Index(path)
    try:
        yield one
    finally:
        one.close()


def indexed(store: Store, shards: Iterable[str]) -> Iterator[Place]:
    """The places of the samples of tar shards, whose headers are read."""
    for shard in shards:
        for name, start, length in positions(store.get(shard)):
            yield Place(name, shard, start, length)


def read(store: Store, place: Place) -> bytes:
    """One sample out of its shard: a request for its range and nothing else."""
    return store.get_range(place.shard, place.start, place.length)
