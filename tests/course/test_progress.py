"""Progress: written whole or not at all, merged between notebooks, never lost, never in the way of grading."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from parallel_lab.course import events, progress, workspace
from parallel_lab.course.chapters import progress_table
from parallel_lab.interview import record


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

from parallel_lab.course import progress
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


@pytest.fixture
def clock(monkeypatch):
    at = [datetime(2026, 11, 28, 9, 0, tzinfo=UTC)]
    monkeypatch.setattr(progress, "now", lambda: at[0])
    return at


def ratings(key: str) -> list[int]:
    return [one["rating"] for one in progress.read()["reviews"].get(key, {}).get("log", [])]


def test_what_a_machine_saw_needs_no_typed_rating(file, clock):
    progress.record_exercise("ring", 0.4)  # a first step that passes is no failure
    assert ratings("exercise/ring") == []
    progress.record_exercise("ring", 0.4, failed=True)
    progress.record_exercise("ring", 0.6, failed=True)
    progress.record_exercise("ring", 1.0)
    progress.record_exercise("ring", 1.0)
    assert ratings("exercise/ring") == [1, 2]
    clock[0] += timedelta(days=3)
    progress.record_exercise("ring", 1.0)
    assert ratings("exercise/ring") == [1, 2, 3]
    progress.record_hint("tree", 1)
    progress.record_exercise("tree", 1.0)
    progress.record_drill("ring-bytes")
    progress.record_drill("tree-bytes", right=False)
    assert [ratings(key) for key in ("exercise/tree", "drill/ring-bytes", "drill/tree-bytes")] == [[2], [3], [1]]
    progress.record_quiz("02_ring", 0.5, place=1, right=True)
    progress.record_card("E5", "partly")
    assert ratings("quiz/02-2") == [3] and ratings("E5/definition") == [2]


def test_a_review_is_logged_with_its_source_and_the_confidence(file, clock):
    assert progress.record_review("E5/formula", 3, "mock", 0.7) == ""
    at = "2026-11-28T09:00:00+00:00"
    expected = {"at": at, "rating": 3, "from": "mock", "confidence": 0.7}
    assert progress.read()["reviews"]["E5/formula"]["log"] == [expected]
    for wrong, said in (((5, "self"), "no rating"), ((3, "guess"), "none of self"), ((3, "self", 2.0), "from 0 to 1")):
        with pytest.raises(ValueError, match=said):
            progress.record_review("E5/formula", *wrong)
    assert progress.record_interview(at, {"minutes": 15}) == "" and progress.record_preparation("interview", {}) == ""
    assert progress.read()["interviews"] == {at: {"minutes": 15}}


def test_two_machines_are_merged_by_the_union_of_their_logs(file, clock, monkeypatch):
    progress.record_review("E5/formula", 3, "self")
    progress.record_exercise("ring", 0.5)
    other = file.with_name("other.json")
    other.write_bytes(file.read_bytes())
    clock[0] += timedelta(hours=1)
    progress.record_review("E5/formula", 1, "self")
    progress.record_prediction("02-bytes", "1")
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(other))
    clock[0] += timedelta(days=1)
    progress.record_review("E5/formula", 2, "self")
    progress.record_prediction("02-bytes", "2")
    progress.record_exercise("ring", 1.0)
    mine, theirs = file.read_bytes(), other.read_bytes()
    assert progress.merge(file) == "" and progress.merge(file) == ""
    merged = progress.read()
    assert ratings("E5/formula") == [3, 1, 2] and merged["predictions"]["02-bytes"]["guess"] == "2"
    assert merged["exercises"]["ring"] == {"best": 1.0, "last": 1.0, "checks": 2, "when": "2026-11-29"}
    file.write_bytes(mine)
    other.write_bytes(theirs)
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(file))
    progress.merge(other)
    assert progress.read() == merged, "the order of a merge matters"


def test_merging_once_more_changes_nothing(file, clock):
    one = {"best": 1.0, "checks": 10, "last": 0.5, "when": "2026-11-28"}
    for other in ({"checks": 9, "last": 0.2}, {"checks": 9, "hints": 1}, {"best": 0.5, "solution": "2026-11-28"}):
        files = [{"exercises": {"ring": entry}} for entry in (one, one | other)]
        union = events.merged(*files)
        assert all(events.merged(union, each) == events.merged(each, union) == union for each in files)


def test_the_most_steps_and_hints_are_kept(file, clock):
    progress.record_exercise("ring", 0.8, steps=2)
    progress.record_exercise("ring", 0.4, steps=1)
    progress.record_hint("ring", 1, skipped=3)
    progress.record_hint("ring", 2)
    mine = {"exercises": {"ring": progress.read()["exercises"]["ring"]}}
    assert {key: mine["exercises"]["ring"][key] for key in ("steps", "skipped", "hints")} == {
        "steps": 2,
        "skipped": 3,
        "hints": 2,
    }
    other = {"exercises": {"ring": {"steps": 3, "skipped": 1, "hints": 1, "when": "2026-11-01"}}}
    ring = events.merged(mine, other)["exercises"]["ring"]
    assert (ring["steps"], ring["skipped"], ring["hints"]) == (3, 3, 2)


def test_a_day_is_one_where_the_learner_is(file, clock, monkeypatch):
    with monkeypatch.context() as there:
        there.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        clock[0] = datetime(2026, 11, 28, 23, 50, tzinfo=UTC)
        progress.record_exercise("ring", 0.4, failed=True)
        clock[0] += timedelta(minutes=20)
        progress.record_exercise("ring", 1.0)
        assert ratings("exercise/ring") == [1, 2], "the morning is one day in Shanghai, and two in London"
        assert record.days(progress.read()) == ["2026-11-29"]
    time.tzset()


def test_a_date_that_was_forgotten_is_not_brought_back_by_a_merge(file, clock):
    progress.record_preparation("interview", {"date": "2027-03-14"})
    other = file.with_name("other.json")
    other.write_bytes(file.read_bytes())
    clock[0] += timedelta(hours=1)
    progress.record_preparation("interview", {})
    progress.merge(other)
    assert "date" not in progress.read()["preparations"]["interview"]


def test_a_file_that_is_none_is_not_merged(file, tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        progress.merge(tmp_path / "nothing.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="no progress file"):
        progress.merge(tmp_path / "list.json")
