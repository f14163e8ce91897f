"""Checks: what the learner reads when the answer is right, wrong, missing, hanging or no function at all."""

import re
import sys
import tomllib
from pathlib import Path

import cloudpickle
import pytest
import torch.distributed as dist

from parallel_lab.course import checks, inputs, progress
from parallel_lab.course.checks import check, grade, hint
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Wrong
from parallel_lab.course.rank_side import TECHNIQUES
from parallel_lab.course.typed import UnknownName
from parallel_lab.course.values import right_everywhere

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def make(rank, ranks, generator):
    return inputs.normal(rank, ranks, generator, shape=(3,))


def doubles(fn, lab):
    """It doubles."""
    outcome = lab.run(fn, 2, make, key="two")
    right_everywhere(outcome, [2 * given[0] for given in outcome.inputs], "Twice.")


def doubles_again(fn, lab):
    """It doubles here too."""
    doubles(fn, lab)


def alone(fn, lab):
    """It works alone."""
    outcome = lab.run(fn, 1, make)
    if outcome.trace.spans:
        raise Wrong("it sent something")


@pytest.fixture
def exercise(monkeypatch):
    one = Exercise("double", "Double", "easy", 1, (doubles, doubles_again, alone), "02_x", 20.0, ("A?", "B?"), "Why.")
    monkeypatch.setitem(checks.EXERCISES, "double", one)
    return one


def test_right_answer_is_solved_and_explained(exercise):
    report = check("double", lambda x: 2 * x)
    assert report.passed and report.score == 1
    assert report.headline == "double: solved, 3 of 3 tests passed"
    assert "Why." in repr(report) and "solutions/02_x.ipynb" in repr(report)
    assert "Why." in report._repr_html_()
    assert progress.read()["exercises"]["double"]["best"] == 1


def test_wrong_answer_says_where_and_repeats_with_seeds(exercise):
    report = check("double", lambda x: 3 * x)
    first, again, last = report.verdicts
    assert (first.state, again.state, last.state) == ("failed", "failed", "passed")
    assert first.seen.startswith("at 2 ranks: rank 0: element") and "1.5 times what it should be" in first.seen
    assert again.seen == "for the same reason"
    assert "Why." not in repr(report)
    assert check("double", lambda x: 3 * x, seeds=first.seeds).verdicts[0].seen == first.seen
    assert check("double", lambda x: 3 * x).verdicts[0].seen != first.seen  # fresh inputs each time


def test_ranks_do_not_know_each_other_s_inputs(exercise):
    seeds = Lab().run(lambda x: x, 4, make).seeds
    assert len(set(seeds)) > 1


def stub(x):
    raise NotImplementedError("write me")


@pytest.mark.parametrize("fn", [None, stub])
def test_stub_is_not_started_and_not_recorded(exercise, fn):
    report = check("double", fn)
    assert report.headline == "double: not started"
    assert report.score == 0 and not report.passed and not report.verdicts
    assert progress.read()["exercises"] == {}


def test_result_in_place_of_the_function_is_explained(exercise):
    report = check("double", 3.0)
    assert "wants the function itself, and got float" in repr(report)


def test_unknown_exercise_names_the_nearest():
    with pytest.raises(UnknownName, match="there is no exercise 'ring_allreduce'; the nearest are ring_all_reduce"):
        check("ring_allreduce", len)


def test_error_of_the_learner_is_short_and_ends_no_cell(exercise):
    report = check("double", lambda x: x.nonsense)
    assert "AttributeError" in report.verdicts[0].seen
    assert len(report.verdicts[0].seen.splitlines()) <= 13
    assert report.score == 0


def test_hang_stops_the_rest(exercise):
    def hangs(x):
        dist.recv(x, 1 - dist.get_rank())

    report = check("double", hangs)
    assert [v.state for v in report.verdicts] == ["failed", "not run", "not run"]
    assert "rank 0 waits in recv" in report.verdicts[0].seen


def test_function_that_cannot_travel_is_explained(exercise):
    with open(__file__) as file:
        report = check("double", lambda x: file.read())
    assert "must be copied to the ranks" in report.verdicts[0].seen


def test_unwritable_progress_is_said_and_grading_goes_on(exercise, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "file" / "p.json"))
    report = check("double", lambda x: 2 * x)
    assert report.passed
    assert "Progress was not saved" in repr(report) and "Progress was not saved" in report._repr_html_()


def test_hints_come_one_at_a_time(exercise):
    assert repr(hint("double")) == "Hint 1 of 2: A?"
    report = grade(exercise, lambda x: x)
    assert repr(report.hint()) == "Hint 2 of 2: B?"
    assert repr(hint("double")) == "Hint 1 of 2: A?"
    assert "<p>Hint 2 of 2: B?</p>" in hint("double")._repr_html_()


def test_nothing_is_saved_when_asked(exercise):
    check("double", lambda x: 2 * x, save=False)
    assert progress.read()["exercises"] == {}


def test_markup_of_the_learner_is_shown_and_not_run(exercise):
    def shouts(x):
        raise ValueError("<script>alert(1)</script>")

    assert "<script>" not in check("double", shouts)._repr_html_()


def test_shared_runs_are_run_once():
    lab = Lab()
    assert lab.run(lambda x: x, 2, make, key="a") is lab.run(lambda x: x, 2, make, key="a")
    assert lab.run(lambda x: x, 2, make) is not lab.run(lambda x: x, 2, make)


def test_every_technique_is_an_answer_that_a_check_refuses():
    contracts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = contracts[0]["layers"]
    between = layers[layers.index("course") + 1 : layers.index("agree")]
    assert set(TECHNIQUES) == {room for layer in between for room in re.split(r" [|:] ", layer)}
