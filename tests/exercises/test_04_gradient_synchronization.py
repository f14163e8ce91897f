"""Exercises of chapter 04: solutions score full marks, stubs none, and the simulation that judges them is right."""

import pytest
import torch
from grading import assert_full_marks, assert_generated, assert_no_marks, solutions, stubs

from parallel_lab.grading.exercises import local_sgd
from parallel_lab.course.lab import Lab

NOTEBOOK = "04_gradient_synchronization"
NAMES = ["asynchronous_sgd", "local_sgd"]
SOLUTIONS = solutions(NOTEBOOK)


@pytest.mark.parametrize("name", NAMES)
def test_solution_scores_full_marks(name):
    assert_full_marks(name, SOLUTIONS[name])


@pytest.mark.parametrize("name", NAMES)
def test_untouched_stub_scores_nothing(name):
    assert_no_marks(name, stubs(NOTEBOOK)[name])


def test_exercises_are_what_the_command_writes():
    assert_generated(NOTEBOOK)


def test_the_cell_that_measures_the_gain_runs(capsys):
    SOLUTIONS["measure_gain"]((0, 3, 3, 1))
    assert "rank 3: 1 gradients finished by then" in capsys.readouterr().out


def test_simulation_with_one_step_a_round_is_synchronous_sgd():
    outcome = local_sgd._run(SOLUTIONS["local_sgd"], Lab(), (4, 4, 4), 1)
    weights = local_sgd.make_weights(local_sgd.WIDTH)
    for batch in range(4):
        mean = torch.stack([local_sgd._gradient(outcome, rank, batch, weights) for rank in range(3)]).mean(0)
        weights = weights - local_sgd.LR * mean
    torch.testing.assert_close(local_sgd.simulate(outcome, (4, 4, 4), 1)[0][2], weights, rtol=0, atol=1e-14)
