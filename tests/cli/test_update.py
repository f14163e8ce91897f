"""A learner's evening on a clone of the real course: he runs, solves and breaks, git is clean, and he updates."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_lab.course.update import BESIDE, RESTART

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("parallel_lab", "notebooks", "exercises", "solutions", "examples", "tools", ".gitignore", "pyproject.toml")
PARTS += ("CHANGELOG.md",)
CHAPTER = "00_start_here.ipynb"
IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")


@pytest.fixture
def clone(tmp_path):
    """The learner's clone, `mine`, of a copy of this course, `course`."""
    (tmp_path / "course").mkdir()
    for part in PARTS:
        source, target = REPOSITORY / part, tmp_path / "course" / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy(source, target)
    git(tmp_path / "course", "init", "-q")
    commit(tmp_path / "course")
    git(tmp_path, "clone", "-q", "course", "mine")
    return tmp_path / "mine"


def git(folder, *arguments):
    return run(folder, "git", *IDENTITY, *arguments)


def commit(folder):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "next")


def run(folder, *command, code=0, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARALLEL_LAB")}
    environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(clone, folder, *arguments, code=0):
    variables = {"PYTHONPATH": str(clone), "JUPYTER_DATA_DIR": str(clone.parent / "jupyter")}
    return run(clone / folder, sys.executable, *arguments, code=code, **variables)


def plab(clone, folder, *arguments, code=0):
    return python(clone, folder, "-m", "parallel_lab.cli", *arguments, code=code)


def change(path, cell, source, cells=None):
    """Writes another source into a cell; of the other cells only the first `cells` are left."""
    notebook = json.loads(path.read_text())
    (found,) = [one for one in notebook["cells"] if one["id"] == cell]
    found["source"] = [source]
    del notebook["cells"][cells or len(notebook["cells"]) :]
    path.write_text(json.dumps(notebook))


def test_an_evening_leaves_git_clean_and_an_update_keeps_every_line(clone, tmp_path):
    first = plab(clone, ".", "update")
    assert "work/ is yours" in first and "restart its kernel" not in first
    nothing = plab(clone, ".", "update").splitlines()
    assert nothing == ["Nothing had to be fetched: the newest version is here, and work/ has all of it."]
    chapter, task = clone / "work/notebooks" / CHAPTER, clone / "work/exercises" / CHAPTER
    shutil.copy(clone / "solutions" / CHAPTER, task)
    assert "sum_of_ranks: solved" in plab(clone, "work/exercises", "check", "sum_of_ranks")
    change(chapter, "title", "my own title", cells=6)  # those up to the first launch and its picture
    assert "done" in python(clone, ".", "tools/execute_notebooks.py", str(chapter))
    (clone / "work/exercises/02_collectives.ipynb").write_text("broken")
    assert git(clone, "status", "--porcelain") == ""
    for folder in ("work/exercises", "parallel_lab/view", ".."):
        assert "sum_of_ranks" in plab(clone, folder, "progress")

    change(tmp_path / "course" / "notebooks" / CHAPTER, "title", "the course's new title")
    with (tmp_path / "course" / "CHANGELOG.md").open("a") as file:
        file.write("- A title that is new.\n")
    commit(tmp_path / "course")
    said = plab(clone, "work/notebooks", "update").splitlines()
    assert said[0].startswith("pulled ")
    assert said[1:] == [
        f"work/notebooks/{CHAPTER} stays as you changed it; the new version lies beside it: 00_start_here.new.ipynb",
        "  Against the version you started from: 0 cells new, 1 changed, 0 gone.",
        "    changed: markdown cell title",
        BESIDE,
        "What is new, from CHANGELOG.md:",
        "  - A title that is new.",
        RESTART,
    ]
    assert "my own title" in chapter.read_text()
    assert "the course's new title" in (chapter.parent / "00_start_here.new.ipynb").read_text()
    assert git(clone, "status", "--porcelain") == ""
    shown = plab(clone, "work/notebooks", "update", "--diff", "00")
    assert "== changed: markdown cell title" in shown and "+the course's new title" in shown
    assert "my own title" not in shown
    assert "no .new file of '01' lies in work/" in plab(clone, ".", "update", "--diff", "01", code=1)

    change(tmp_path / "course" / "exercises" / CHAPTER, "title", "the course's new title")
    commit(tmp_path / "course")
    git(clone, "pull", "-q")  # by hand
    assert plab(clone, ".", "update").splitlines()[:2] == [
        "Nothing had to be fetched: the newest version is here, this is what it brings into work/:",
        f"work/exercises/{CHAPTER} stays as you changed it; the new version lies beside it: 00_start_here.new.ipynb",
    ]

    git(clone, "remote", "remove", "origin")
    chapter.unlink()
    assert plab(clone, ".", "update", code=1).splitlines() == [
        f"new: work/notebooks/{CHAPTER}",
        RESTART,
        "Error: this clone has no remote to pull from: name one with `git remote add origin ADDRESS`",
    ]
    assert "sum_of_ranks" in plab(clone, ".", "progress")
