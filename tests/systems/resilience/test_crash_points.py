"""Really killed saves: what each way to save leaves, and what a kill cannot tell."""

import os

import pytest
import torch

from parallel_lab import launch
from parallel_lab.runtime import crash_points
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.savings import SAVINGS, survey

pytestmark = pytest.mark.usefixtures("by_value")


def test_which_ways_to_save_survive_a_kill(tmp_path):
    """Of every fifth call: writing aside always, the others at their first point alone."""
    found = launch(survey, tmp_path, every=5, ranks=1, timeout=170)[0]  # a busy machine
    assert not [str(point.call) for point in found.pop("aside") if not point.survived]
    for name, points in found.items():
        assert len(points) >= 3 and [point.survived for point in points] == [True] + [False] * (len(points) - 1), name


def test_the_calls_are_recorded_in_their_order(tmp_path):
    """The fsyncs that no kill misses stand here: of each file before the rename, of the folders on both sides of it."""

    def fn():
        where = tmp_path / "run"
        return [str(call) for call in crash_points.recorded(lambda: SAVINGS["aside"].save(where, 1))]

    calls = launch(fn, ranks=1)[0]
    rename = calls.index("rename .000001-partial -> 000001-step-1")
    for name in (*folder_files(), ".000001-partial"):
        assert calls.index(f"fsync {name}") < rename
    assert calls.index(f"open {folder.INDEX}") > max(calls.index(f"fsync {name}") for name in folder_files()[:2])
    assert calls[rename + 1] == "fsync run"


def folder_files():
    return ["model.pt", "optimizer.pt", folder.INDEX]


def test_all_the_ways_to_change_a_file_are_counted(tmp_path):
    def body(where):
        (where / "a").mkdir()
        (where / "a" / "x").write_text("words")
        handle = os.open(where / "y", os.O_CREAT | os.O_WRONLY)
        os.write(handle, b"1234")
        os.fsync(handle)
        os.close(handle)
        with open(where / "z", "w+b", buffering=0) as raw:
            raw.write(b"12")
            os.ftruncate(raw.fileno(), 1)
        torch.save(torch.zeros(2), str(where / "t.pt"))
        os.replace(where / "y", where / "v")
        os.symlink(where / "v", where / "s")
        os.unlink(where / "s")
        (where / "a" / "x").unlink()
        (where / "a").rmdir()
        assert (where / "v").read_text() == "1234"  # reading is no call that changes

    def fn():
        return [str(call) for call in crash_points.recorded(lambda: body(tmp_path))]

    calls = launch(fn, ranks=1)[0]
    expected = ["mkdir a", "open x", "write x", "half a write x", "open y", "write y", "half a write y", "fsync y"]
    expected += ["open z", "write z", "half a write z", "ftruncate z", "open t.pt"]
    assert calls[: len(expected)] == expected
    assert calls[-5:] == ["replace y -> v", "symlink v -> s", "unlink s", "unlink x", "rmdir a"]


def test_half_a_write_is_on_the_disk_and_an_error_is_told(tmp_path):
    def fn():
        points = crash_points.kill_everywhere(
            lambda where: (where / "f").write_text("12345678"),
            lambda where: (where / "f").read_text(),
            prepare=lambda where: (where / "f").write_text("old"),
            where=tmp_path,
            expected=lambda text: text in ("old", "12345678"),
        )
        try:
            crash_points.recorded(lambda: 1 / 0)
        except RuntimeError as error:
            return [(str(point.call), point.found, point.survived) for point in points], str(error)

    points, error = launch(fn, ranks=1)[0]
    assert points == [("open f", "old", True), ("write f", "", False), ("half a write f", "1234", False)]
    assert error == "ZeroDivisionError: division by zero"
