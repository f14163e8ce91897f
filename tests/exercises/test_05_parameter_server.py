"""`parameter_server`: the solution scores full marks, the stub none."""

from grading import assert_full_marks, assert_generated, assert_no_marks, solutions, stubs

NOTEBOOK = "05_parameter_server"
NAME = "parameter_server"
SOLUTIONS = solutions(NOTEBOOK)


def test_solution_scores_full_marks():
    assert_full_marks(NAME, SOLUTIONS[NAME])


def test_untouched_stub_scores_nothing():
    assert_no_marks(NAME, stubs(NOTEBOOK)[NAME])


def test_exercises_are_what_the_command_writes():
    assert_generated(NOTEBOOK)
