"""Checks: what the learner reads when the answer is right, wrong, missing, hanging or no function at all."""

import sys
import time

import cloudpickle
import pytest
import torch.distributed as dist

from parallel_lab.course import checks, progress
from parallel_lab.course.checks import check, grade, hint
from parallel_lab.course.typed import UnknownName
from parallel_lab.grading import drivers, lab, rank_side
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.expect import equals
from parallel_lab.grading.lab import Lab, Wrong
from parallel_lab.grading.rank_side import Case

cloudpickle.register_pickle_by_value(sys.modules[__name__])
TEXT = "title: Double\nlevel: easy\nminutes: 1\nnotebook: 02_x\n\n## Hint\n\nA?\n\n## Hint\n\nB?\n\n## Solved\n\nWhy.\n"


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def silent(outcome):
    if outcome.trace.spans:
        raise Wrong("it sent something")


def doubled(outcome):
    return [2 * given[0] for given in outcome.inputs]


DOUBLE = Exercise(
    name="double",
    given=drivers.normal,
    expected=doubled,
    settings={"shape": (3,)},
    tests={
        "It doubles": on(2, equals("Twice.")),
        "It doubles here too": on(2, equals("Twice.")),
        "It works alone": on(1, silent),
    },
    text=TEXT,
)


@pytest.fixture
def exercise(monkeypatch):
    monkeypatch.setitem(checks.EXERCISES, "double", DOUBLE)
    return DOUBLE


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
    assert f'check("double", double, seeds={first.run.seeds}).draw()' in repr(report)
    assert check("double", lambda x: 3 * x, seeds=first.run.seeds).verdicts[0].seen == first.seen
    assert check("double", lambda x: 3 * x).verdicts[0].seen != first.seen  # fresh inputs each time


def test_ranks_do_not_know_each_other_s_inputs(exercise):
    seeds = Lab(exercise, lambda x: x).run(Case(4)).seeds
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


def test_equal_cases_are_one_run(exercise):
    lab = Lab(exercise, lambda x: x)
    assert lab.run(Case(2)) is lab.run(Case(2))
    assert lab.run(Case(2)) is not lab.run(Case(2, (("shape", (4,)),)))


def test_failed_run_can_be_looked_into_and_drawn(exercise):
    def answer(x):
        print("a rank speaks")
        other = x.clone()
        dist.all_reduce(other)
        return other

    report = check("double", answer)
    assert len(report.run.results) == 2 and report.run.trace.spans
    assert "rank 1 printed: a rank speaks" in repr(report)
    assert "all_reduce" in repr(report.draw())
    with pytest.raises(ValueError, match="no failed run to draw"):
        check("double", lambda x: 2 * x).draw()


def test_endless_loop_is_ended_by_its_processor_time(exercise, monkeypatch):
    def loops(x):
        while True:
            pass

    def graded(*arguments):
        rank_side.PROCESSOR_S = 0.5
        return rank_side.graded(*arguments)

    monkeypatch.setattr(lab, "graded", graded)
    assert "computed for 0.5 s of processor time" in repr(check("double", loops))


def test_ranks_that_stand_still_are_ended(exercise, monkeypatch):
    monkeypatch.setattr(lab, "STILL_S", 1.0)
    report = check("double", lambda x: time.sleep(100))
    assert [v.state for v in report.verdicts] == ["failed", "not run", "not run"]
    assert "the ranks did not finish" in report.verdicts[0].seen
