"""The index finds every sample, changes all of what it is told or nothing, and never holds the bytes."""

import sqlite3

import pytest

from parallel_lab.systems.storage import Memory, Missing, database, formats
from parallel_lab.systems.storage.database import Place

SAMPLES = [(f"{number:02d}.txt", bytes([number]) * number) for number in range(10)]


@pytest.fixture
def index(tmp_path):
    with database.index(tmp_path / "index.sqlite") as one:
        yield one


class Counted(Memory):
    """Counts the bytes that are read."""

    read_bytes = 0

    def get_range(self, key, start, length):
        self.read_bytes += length
        return super().get_range(key, start, length)


def test_a_sample_is_found_in_its_shard_and_read_alone(index):
    store = Counted()
    index.add(database.indexed(store, formats.write_shards(store, "s", SAMPLES, 4)))
    assert len(index) == 10
    for name, data in SAMPLES[1:]:
        assert database.read(store, index.where(name)) == data
    assert store.read_bytes == sum(len(data) for _, data in SAMPLES), "and not a byte more"
    with pytest.raises(Missing, match=r"no\.txt"):
        index.where("no.txt")


def test_samples_move_between_splits_and_no_shard_changes(index):
    index.add(Place(f"n{number}", f"s{number % 2}", number, 1) for number in range(6))
    assert index.move(["n1", "n2", "unknown"], "valid") == 2
    assert [place.sample for place in index.of_split("valid")] == ["n2", "n1"]  # by shard, then by place
    assert [place.sample for place in index.of_split("train")] == ["n0", "n4", "n3", "n5"]


def test_an_error_leaves_nothing_half_done(index):
    index.add([Place("a", "s", 0, 1)])
    with pytest.raises(sqlite3.IntegrityError):
        index.add([Place("b", "s", 1, 1), Place("a", "s", 2, 1)])
    assert [place.sample for place in index.of_split("train")] == ["a"]


def test_another_reader_sees_what_was_committed(index, tmp_path):
    index.add([Place("a", "s", 0, 1)])
    with database.index(tmp_path / "index.sqlite") as other:
        assert other.where("a") == Place("a", "s", 0, 1, "train")
