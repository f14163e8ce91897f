"""Checks: what the learner reads when the answer is right, wrong, missing, hanging or no function at all."""

import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import cloudpickle
import pytest
import torch
import torch.distributed as dist

from parallel_lab.course import checks, progress
from parallel_lab.course.checks import Report, Verdict, case, check, grade, hint
from parallel_lab.course.typed import UnknownName
from parallel_lab.grading import drivers, lab, rank_side, trial
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.grading.expect import equals
from parallel_lab.grading.lab import Lab, Wrong
from parallel_lab.grading.rank_side import Case
from parallel_lab.grading.trial import Trial

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


def test_wrong_answer_says_where_and_repeats_with_its_seed(exercise):
    report = check("double", lambda x: 3 * x)
    first, again, last = report.verdicts
    assert (first.state, again.state, last.state) == ("failed", "failed", "passed")
    assert first.seen.startswith("at 2 ranks: rank 0: element") and "1.5 times what it should be" in first.seen
    assert again.seen == "for the same reason, at 2 ranks"
    assert "Why." not in repr(report)
    seed = first.trial.seed
    assert f"2 ranks, each with a float64 tensor of shape (3,); seed {seed}." in repr(report)
    assert f'case("double", ranks=2, seed={seed})' in repr(report)
    assert check("double", lambda x: 3 * x, seed=seed).verdicts[0].seen == first.seen
    assert check("double", lambda x: 3 * x).verdicts[0].seen != first.seen  # fresh inputs each time


def test_case_of_a_report_gives_inputs_and_result_and_runs_with_prints(exercise, capsys):
    def answer(x):
        print("mine is", len(x))
        return 3 * x

    failed = check("double", answer).failed.trial
    again = eval(failed.call, {"case": case})
    assert again.case == failed.case and len(again.inputs) == 2
    assert all(torch.equal(right, 2 * x) for right, (x,) in zip(again.expected, again.inputs, strict=True))
    run = again.run(answer)
    assert torch.equal(run[1], 3 * again.inputs[1][0])
    assert "[rank 1] mine is 3" in capsys.readouterr().out
    assert case("double", ranks=2, seed=1, shape=(5,)).inputs[0][0].shape == (5,)


@pytest.mark.parametrize("name", EXERCISES)
def test_every_case_has_a_call_that_gives_it_again(name):
    for of_test in EXERCISES[name].tests.values():
        for one, _ in of_test:
            made = Trial(EXERCISES[name], replace(one, defaults=tuple(EXERCISES[name].settings.items())), 7)
            assert eval(made.call, {"case": case}).case == made.case, made.call


def test_equal_errors_are_told_once(exercise):
    report = check("double", lambda x: x.nonsense)
    assert repr(report).count("AttributeError") == 1
    assert [v.seen for v in report.verdicts[1:]] == [
        "for the same reason, at 2 ranks",
        "for the same reason, at 1 rank",
    ]
    assert "rank_side" not in repr(report)


def test_last_lines_of_each_rank_are_shown_and_folded_after_a_pass(exercise):
    def talks(factor):
        def answer(x):
            for line in range(30):
                print("line", line)
            return factor * x

        return answer

    failed, passed = repr(check("double", talks(3))), check("double", talks(2))._repr_html_()
    assert "[rank 1] ... (10 lines before)\n" in failed and "[rank 1] line 29" in failed
    assert "[rank 0] line 9\n" not in failed
    assert "<details" in passed and "[rank 0] line 29" in passed


def test_advice_is_for_what_was_seen(exercise):
    def behind_an_if(x):
        if dist.get_rank():
            dist.all_reduce(x)
        return x

    report = check("double", behind_an_if)
    assert "isend" not in repr(report) and "does this call stand behind an `if`" in report.verdicts[0].advice


def test_after_a_pass_the_next_exercise_is_a_link():
    report = check("sum_of_ranks", summed)
    assert report.passed
    assert "Next: " in repr(report) and 'href="../' in report._repr_html_()


def summed(number):
    total = number.clone()
    dist.all_reduce(total)
    return total


def test_a_failure_is_named_by_its_step_and_called_no_next_one():
    steps = "step: 1 minutes, 1 test, it doubles\nstep: 2 minutes, 1 test, all are doubled\n"
    exercise = replace(DOUBLE, tests=dict(list(DOUBLE.tests.items())[1:]), text=TEXT.replace("minutes: 1\n", steps))
    titles = list(exercise.tests)

    def closing(*states, step=None):
        verdicts = [Verdict(title, state) for title, state in zip(titles, states, strict=False)]
        _, *below = repr(Report(exercise, verdicts, step=step)).splitlines()
        return [line for line in below if " step " in line]

    assert closing("passed", step=1)[-1].startswith("Next is step 2 of 2: all are doubled (2 minutes, ")
    assert closing("failed", step=1) == closing("passed", "failed", step=2) == []  # just that was checked
    for step in (None, 2):
        (said,) = closing("failed", "failed", step=step)
        assert said.startswith("The first test that failed belongs to step 1 of 2: it doubles. To check no further")
        assert said.endswith('check("double", double, step=1)`.')
    assert closing("passed", "failed")[-1].startswith("The first test that failed belongs to step 2 of 2")
    assert closing("passed", "passed") == []


def test_failed_run_is_drawn_beside_the_reference():
    def reduced(number):
        total = number.clone()
        dist.reduce(total, 0)
        return total

    drawing = check("sum_of_ranks", reduced).draw(reference=True)
    assert drawing.trace.ranks == 4
    assert {s.kind for s in drawing.trace.spans} == {"reduce", "all_reduce"}


def test_no_step_but_the_last_draws_the_reference():
    def own_to_the_right(tensor):
        rank, n = dist.get_rank(), dist.get_world_size()
        if n == 1:
            return tensor.clone()
        sent = dist.isend(tensor, (rank + 1) % n)
        dist.recv(came := torch.empty_like(tensor), (rank - 1) % n)
        sent.wait()
        return came

    report = check("ring_all_reduce", own_to_the_right, step=1)
    assert ".draw()`. Only the last step has a reference to draw." in repr(report)
    assert "draw(reference=True)" not in repr(report)
    drawing, ranks = report.draw(reference=True), report.failed.trial.case.ranks
    assert drawing.trace.ranks == ranks and "Only the last step has a reference" in drawing.title
    for whole in (replace(report, step=3), replace(report, step=None)):
        assert "`.draw(reference=True)` has a right run below it." in repr(whole)
    assert replace(report, step=3).draw(reference=True).trace.ranks == 2 * ranks
    lost = replace(report, verdicts=[replace(report.failed, trace=None)])
    with pytest.raises(ValueError, match="Only the last step has a reference"):
        lost.draw(reference=True)


def test_run_that_came_to_no_end_is_drawn_alone_and_beside_the_reference():
    def only_rank_0(number):
        dist.all_reduce(number) if dist.get_rank() == 0 else None
        return number

    report = check("sum_of_ranks", only_rank_0)
    assert report.run is None and "outlined" not in report.draw().text
    assert [(s.rank, s.cut) for s in report.draw().trace.spans] == [(0, True)]
    both = report.draw(reference=True).trace
    assert both.ranks == 4 and [s.cut for s in both.of(0)] == [True] and len(both.of(2)) == len(both.of(3)) == 1


def test_a_report_in_a_notebook_says_what_can_be_typed_there():
    """With imports, where the notebook lacks them."""
    code = """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        run = lambda source: shell.run_cell(source, store_history=True)
        run("from parallel_lab import check")
        run("def sum_of_ranks(x):\\n    return x")
        run("report = check('sum_of_ranks', sum_of_ranks)")
        print(repr(shell.user_ns["report"]))
        run("from parallel_lab import case, hint")
        print("SECOND", repr(shell.user_ns["report"]))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    first, second = ran.stdout.split("SECOND")
    assert 'To look into it: from parallel_lab import case; case("sum_of_ranks", ranks=' in first
    assert 'from parallel_lab import hint; hint("sum_of_ranks")' in first and "draw" not in first
    assert "from parallel_lab" not in second and 'hint("sum_of_ranks")' in second


def test_missing_reference_is_said(exercise):
    with pytest.raises(FileNotFoundError, match="the reference of double is not at hand"):
        check("double", lambda x: 3 * x).draw(reference=True)


def test_older_definition_in_a_notebook_is_said(exercise):
    code = """
        from IPython.core.interactiveshell import InteractiveShell
        from parallel_lab import check
        from parallel_lab.course import checks
        shell = InteractiveShell.instance()
        checks.cells.listen()
        run = lambda source: shell.run_cell(source, store_history=True)
        run("from parallel_lab import check")
        run("import torch.distributed as dist\\ndef sum_of_ranks(x):\\n    return x")
        run("def sum_of_ranks(x):\\n    return x +")
        run("print(check('sum_of_ranks', sum_of_ranks, save=False))")
        run("def sum_of_ranks(x):\\n    dist.barrier()\\n    return x")
        run("print(check('sum_of_ranks', sum_of_ranks, save=False))")
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "Graded: the cell In[2], run " in ran.stdout and " s ago." in ran.stdout
    assert "The cell In[3] ended with a SyntaxError, so the older definition of In[2] was graded." in ran.stdout
    assert "Graded: the cell In[5], run " in ran.stdout
    assert ran.stdout.count("older definition") == 1


def test_each_rank_has_its_own_input(exercise):
    one, other = Lab(exercise, lambda x: x).run(Case(2)).inputs
    assert not torch.equal(one[0], other[0])


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


def test_long_lines_of_a_report_wrap_but_where_they_stand_in_columns():
    pre = '<pre style="white-space: pre-wrap; overflow-wrap: anywhere">'
    what = "rank 0 waits in send(to rank 1) at cell, line 3: `dist.send(x, 1)  # to the right`"
    part = checks._test(checks.Verdict("It ends", checks.FAILED, f"at 2 ranks: the ranks did not finish.\n{what}"))
    assert f"{pre}rank 0 waits in send" in part.html and f"      {what}" in part.text
    grid = "rank 0:  0F0  0F1  0B0  0B1\nrank 1:       1F0  1B0"
    part = checks._test(checks.Verdict("The order", checks.FAILED, f"p = 2, m = 2: it takes too long\n{grid}"))
    assert "<pre>rank 0:  0F0  0F1" in part.html and "pre-wrap" not in part.html


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


def test_a_report_says_how_its_run_is_drawn_where_something_was_sent(exercise):
    def answer(x):
        dist.all_reduce(x)
        return x

    assert 'To see what the ranks did: `check("double", double).draw()`' in repr(check("double", answer))
    assert "draw" not in repr(check("double", lambda x: 3 * x))
    assert "draw" not in repr(check("double", lambda x: 2 * x))


def test_failed_run_can_be_looked_into_and_drawn(exercise):
    def answer(x):
        print("a rank speaks")
        other = x.clone()
        dist.all_reduce(other)
        return other

    report = check("double", answer)
    assert len(report.run.results) == 2 and report.run.trace.spans
    assert "[rank 1] a rank speaks" in repr(report)
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

    monkeypatch.setattr(trial, "graded", graded)
    assert "computed for 0.5 s of processor time" in repr(check("double", loops))


def test_ranks_that_stand_still_are_ended(exercise, monkeypatch):
    monkeypatch.setattr(lab, "STILL_S", 1.0)
    report = check("double", lambda x: time.sleep(100))
    assert [v.state for v in report.verdicts] == ["failed", "not run", "not run"]
    assert "the ranks did not finish" in report.verdicts[0].seen
