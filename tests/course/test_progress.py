"""Progress: written whole or not at all, merged between notebooks, never lost, never in the way of grading."""

import json
import os
import subprocess
import sys

import pytest

from parallel_lab.course import progress, workspace
from parallel_lab.course.chapters import progress_table


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "mine" / "progress.json"))
    return tmp_path / "mine" / "progress.json"


def test_best_score_stays(file):
    assert progress.record_exercise("ring", 5 / 5) == ""
    assert progress.record_exercise("ring", 2 / 5) == ""
    entry = progress.read()["exercises"]["ring"]
    assert (entry["best"], entry["last"], entry["checks"]) == (1.0, 0.4, 2)
    assert progress.state(entry) == "solved"
    assert progress.state({"best": 0.6}) == "started, 60 %"
    assert progress.state({"hints": 1}) == "not started"


def test_kinds_and_names_are_merged(file):
    progress.record_exercise("ring", 1 / 5)
    progress.record_quiz("02-ring", 1 / 2)
    progress.record_hint("ring", 2)
    progress.record_hint("ring", 1)
    entries = progress.read()
    assert entries["exercises"]["ring"]["hints"] == 2
    assert entries["exercises"]["ring"]["best"] == 0.2
    assert entries["quizzes"]["02-ring"]["best"] == 0.5


@pytest.mark.parametrize("text", ["{", "[]", '{"exercises": 3}', '{"exercises": {"a": 1}}', "\xff"])
def test_damaged_file_is_set_aside(file, text):
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))
    (file.parent / "progress.json.damaged-1").write_text("an earlier one")
    said = progress.record_exercise("ring", 5 / 5)
    assert "kept as progress.json.damaged-2" in said
    assert (file.parent / "progress.json.damaged-2").read_bytes() == text.encode("latin-1")
    assert progress.read()["exercises"]["ring"]["best"] == 1.0


def test_failed_write_leaves_the_old_file_and_no_litter(file, monkeypatch):
    progress.record_exercise("ring", 1 / 5)
    before = file.read_text()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert progress.record_exercise("ring", 5 / 5) == f"Progress was not saved: {file}: No space left on device."
    assert file.read_text() == before
    assert {one.name for one in file.parent.iterdir()} == {"progress.json", "progress.json.lock"}


def test_folder_that_cannot_be_made_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert progress.record_exercise("ring", 5 / 5).startswith("Progress was not saved: ")


WRITER = """
import sys
from parallel_lab.course import progress, workspace
from parallel_lab.course.chapters import progress_table
for turn in range(40):
    assert progress.record_exercise(f"task-{sys.argv[1]}-{turn}", 1 / 1) == ""
    assert progress.record_exercise("both", 1 / 2) == ""
"""


def test_two_notebooks_lose_nothing(file):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(number)]) for number in range(2)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    entries = progress.read()["exercises"]
    assert len(entries) == 81
    assert entries["both"]["checks"] == 80


def test_table_shows_what_is_recorded(file):
    assert "Nothing solved yet." in repr(progress_table())
    progress.record_quiz("02_collectives_and_topologies", 1 / 2)
    progress.record_exercise("ring_shift", 5 / 5)
    table = progress_table()
    rows = [line.split()[:4] for line in repr(table).splitlines()[1:3]]
    assert rows[0] == ["02", "exercise", "ring_shift", "solved"]
    assert rows[1] == ["02", "self-check", "02_collectives_and_topologies", "started,"]
    assert "<td>ring_shift</td>" in table._repr_html_() and "Next: <a href=" in table._repr_html_()


def test_file_is_json_for_people(file):
    progress.record_exercise("ring", 5 / 5)
    assert json.loads(file.read_text())["version"] == 1


def test_the_table_names_its_file_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PARALLEL_LAB_PROGRESS", raising=False)
    monkeypatch.setattr(workspace, "root", lambda: tmp_path)
    (tmp_path / "work" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "notebooks")
    assert repr(progress_table()).endswith("\n../progress.json")
    elsewhere = tmp_path.parent / "progress.json"
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(elsewhere))
    assert repr(progress_table()).endswith(f"\n{elsewhere}")
