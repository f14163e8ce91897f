"""Every exercise: its solution scores full marks, its stub none, and `exercises/` is what the command writes."""

import ast

import nbformat
import pytest
import torch.distributed as dist
from grading import ROOT, solutions, stubs

from parallel_lab.course import generate
from parallel_lab.course.checks import check
from parallel_lab.grading.exercises import EXERCISES

LONGER = [name for name, exercise in EXERCISES.items() if not exercise.gap]  # test_gaps has the others


@pytest.mark.parametrize("name", LONGER)
def test_solution_scores_full_marks_and_the_note_is_shown(name):
    report = check(name, solutions(name)[name])
    assert report.score == 1, repr(report)
    assert EXERCISES[name].solution_note in repr(report)


@pytest.mark.parametrize("name", LONGER)
def test_untouched_stub_scores_nothing(name):
    report = check(name, stubs(name)[name])
    assert report.score == 0 and not report.passed, repr(report)


@pytest.mark.parametrize("notebook", sorted({EXERCISES[name].notebook for name in LONGER}))
def test_exercises_are_what_the_command_writes(notebook):
    written = (ROOT / "exercises" / f"{notebook}.ipynb").read_bytes().decode()
    assert written == generate.generate(ROOT, notebook)


@pytest.mark.parametrize("notebook", sorted({EXERCISES[name].notebook for name in LONGER}))
def test_nothing_follows_what_a_learner_is_to_write(notebook):
    cells = nbformat.read(ROOT / "exercises" / f"{notebook}.ipynb", as_version=4).cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        raises = [place for place, one in enumerate(node.body) if isinstance(one, ast.Raise)]
        assert raises in ([], [len(node.body) - 1]), node.name


def test_untouched_attempt_of_the_first_chapter_scores_nothing():
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == "sum-of-ranks")
    space = {"__name__": "__plab__", "dist": dist}  # no module of this name: the function travels to ranks by value
    exec(cell.source, space)
    report = check("sum_of_ranks", space["sum_of_ranks"])
    assert report.score == 0, repr(report)
    assert "at 2 ranks: rank 1: element 0 is" in repr(report)


def test_the_cell_that_measures_the_gain_of_asynchronous_training_runs(capsys):
    solutions("asynchronous_sgd")["measure_gain"]((0, 3, 3, 1))
    assert "rank 3: 1 gradients finished by then" in capsys.readouterr().out
