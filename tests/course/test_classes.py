"""Solutions are an assignment of nbgrader as they are: it is given, handed in by three, graded, and answered."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from parallel_lab.course import checks, marks
from parallel_lab.grading.exercises import EXERCISES

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "00_start_here"
TESTS = len(EXERCISES["sum_of_ranks"].tests)


def nbgrader(folder: Path, *words: str) -> str:
    """What the command does in `folder`, with nothing of this learner's in reach."""
    place = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data")}
    place["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic by name
    line = [sys.executable, "-m", "nbgrader", *words]
    done = subprocess.run(line, cwd=folder, env=os.environ | place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """The folder of a class after one assignment: ada solved it, bob handed it in as it was, cleo is half right."""
    folder = tmp_path_factory.mktemp("class")
    shutil.copy(REPOSITORY / "docs" / "teaching" / "nbgrader_config.py", folder)
    (folder / "source" / "first").mkdir(parents=True)
    shutil.copy(REPOSITORY / "solutions" / f"{NAME}.ipynb", folder / "source" / "first")
    nbgrader(folder, "generate_assignment", "first")
    given = folder / "release" / "first" / f"{NAME}.ipynb"
    hand_in(folder, "ada", given, "    total = number.clone()\n    dist.all_reduce(total)\n    return total")
    hand_in(folder, "bob", given, None)
    hand_in(folder, "cleo", given, "    return number")
    nbgrader(folder, "autograde", "first", "--create")
    nbgrader(folder, "generate_feedback", "first")
    return folder


def hand_in(folder: Path, who: str, given: Path, body: str | None) -> None:
    """What a student hands in: the assignment as it was given, with an answer in its cell."""
    notebook = nbformat.read(given, 4)
    for cell in notebook.cells:
        if body and cell.id == "sum-of-ranks":
            cell.source = f"def sum_of_ranks(number):\n{body}"
    place = folder / "submitted" / who / "first"
    place.mkdir(parents=True)
    nbformat.write(notebook, place / given.name)


def test_every_solution_carries_the_marks():
    files = sorted((REPOSITORY / "solutions").glob("*.ipynb"))
    assert files and not [file.name for file in files if marks.marked(file.read_text()) != file.read_text()]
    for file in files:
        cells = [cell.metadata.get("nbgrader") for cell in nbformat.read(file, 4).cells]
        graded = [about for about in cells if about and about["grade"]]
        assert graded and all(about["points"] >= 2 for about in graded), file.name
        assert any(about and about["solution"] for about in cells), file.name


def test_every_exercise_gives_points_once():
    cells = [cell for file in (REPOSITORY / "solutions").glob("*.ipynb") for cell in nbformat.read(file, 4).cells]
    names = [marks.graded(cell.source) for cell in cells]
    assert sorted(filter(None, names)) == sorted(name for name, one in EXERCISES.items() if not one.gap)


def test_the_assignment_is_what_learners_get(course):
    given = nbformat.read(course / "release" / "first" / f"{NAME}.ipynb", 4)
    exercise = nbformat.read(REPOSITORY / "exercises" / f"{NAME}.ipynb", 4)
    assert [cell.source for cell in given.cells] == [cell.source for cell in exercise.cells]


def test_each_gets_what_he_solved(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        scores = {who: book.find_submission("first", who).score for who in ("ada", "bob", "cleo")}
        assert book.find_assignment("first").max_score == TESTS
    assert scores["ada"] == TESTS and scores["bob"] == 0 and 0 <= scores["cleo"] < TESTS


def test_each_reads_what_was_expected_and_what_was_seen(course):
    said = {who: (course / "feedback" / who / "first" / f"{NAME}.html").read_text() for who in ("ada", "bob", "cleo")}
    assert "sum_of_ranks: solved" in said["ada"]
    assert "not yet" in said["bob"], "the assignment has a line to mend"
    assert "not yet" in said["cleo"] and "plab-test" in said["cleo"]


def test_nothing_of_a_class_is_booked_as_ones_own(course, tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv(checks.NBGRADER, "autograde")
    report = checks.check("sum_of_ranks", lambda number: number)
    assert repr(report).isdecimal() and "not yet" in report.headline and not (tmp_path / "progress.json").exists()
