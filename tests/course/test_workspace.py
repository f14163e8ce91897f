"""The course's folder and the learner's are the same from every working folder."""

import shutil
import subprocess
import sys
from pathlib import Path

from parallel_lab.course import progress, workspace

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_checkout_is_the_course_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PARALLEL_LAB_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert workspace.root() == REPOSITORY
    assert progress.location() == REPOSITORY / "work" / "progress.json"


def test_without_a_checkout_it_is_the_nearest_course_above(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "HERE", tmp_path / "site-packages")
    (tmp_path / "course" / "work" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "course" / "work" / "notebooks")
    assert workspace.root() == tmp_path / "course" / "work" / "notebooks"
    (tmp_path / "course" / "notebooks").mkdir()
    (tmp_path / "course" / "pyproject.toml").touch()
    assert workspace.root() == tmp_path / "course"


def test_the_package_seen_through_the_learners_link_is_the_same_course(tmp_path):
    course = tmp_path / "course"
    shutil.copytree(REPOSITORY / "parallel_lab", course / "parallel_lab", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("notebooks", "work/notebooks"):
        (course / folder).mkdir(parents=True)
    (course / "pyproject.toml").touch()
    (course / "work" / "parallel_lab").symlink_to("../parallel_lab")
    asked = "from parallel_lab.course import workspace; print(workspace.work())"
    told = subprocess.run([sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {asked}"], text=True,
                          cwd=course / "work", capture_output=True, env={"PATH": ""})  # fmt: skip
    assert told.stdout.strip() == str(course / "work"), told.stderr


def test_progress_from_before_there_was_work_is_moved_there_once(tmp_path, monkeypatch):
    monkeypatch.delenv("PARALLEL_LAB_PROGRESS", raising=False)
    monkeypatch.setattr(workspace, "root", lambda: tmp_path)
    old, new = tmp_path / "progress.json", tmp_path / "work" / "progress.json"
    old.write_text('{"exercises": {"ring": {"best": 1.0}}}')
    assert progress.read()["exercises"]["ring"]["best"] == 1.0
    assert new.exists() and not old.exists()
    old.write_text('{"exercises": {"ring": {"best": 0.0}}}')
    assert progress.read()["exercises"]["ring"]["best"] == 1.0
    assert old.exists()
