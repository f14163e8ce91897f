"""`plab`: every command, its errors in one line, Ctrl-C with 130."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime

import click
import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from parallel_lab.cli import doctor, late, main, solution, watch
from parallel_lab.cli.commands import COMMANDS
from parallel_lab.cli.run import parse_link
from parallel_lab.course import page, progress, workspace
from parallel_lab.course.chapters import next_exercise, progress_table
from parallel_lab.course.checks import Report, Verdict, hint
from parallel_lab.course.quizzes import quiz
from parallel_lab.course.tasks import tasks
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.interview.atoms import atom
from parallel_lab.interview.course_path import path_page
from parallel_lab.runtime import Link


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.chdir(tmp_path)


def plab(*arguments, **options):
    return CliRunner().invoke(main, list(arguments), **options)


SHIFT = """import torch
import torch.distributed as dist

def ring_shift(tensor):
    n, rank = dist.get_world_size(), dist.get_rank()
    if n == 1:
        return tensor.clone()
    ### BEGIN SOLUTION
    sending = dist.isend(tensor, (rank + 1) % n)
    dist.recv(received := torch.empty_like(tensor), (rank - 1) % n)
    sending.wait()
    return received
    ### END SOLUTION
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A learner's folder in which ring_shift is solved and nothing else is written."""
    monkeypatch.setattr(workspace, "work", lambda: tmp_path / "work")
    mine = tmp_path / "work" / "exercises" / "02_collectives.ipynb"
    mine.parent.mkdir(parents=True)
    save(mine, "%matplotlib inline\nprint('never run')\nunused = 1 / 0", SHIFT)
    return mine


def save(file, *sources):
    cells = [new_code_cell(source, id=f"cell-{place}") for place, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells), file)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_has_an_example(command):
    result = plab(*command, "--help")
    assert result.exit_code == 0
    assert "plab " + (command[0] if command else "next") in result.output


def test_no_help_waits_for_torch_or_matplotlib():
    loads = "[name for name in [*COMMANDS, ''] if CliRunner().invoke(main, [*name.split(), '--help']) and loaded()]"
    program = "import sys; from click.testing import CliRunner; from parallel_lab.cli.commands import COMMANDS, main\n"
    heavy = "('torch', 'matplotlib')"
    program += f"def loaded(): return [sys.modules.pop(one) for one in {heavy} if one in sys.modules]\n"
    done = subprocess.run([sys.executable, "-c", f"{program}print({loads})"], capture_output=True, text=True)
    assert done.stdout == "[]\n", f"--help of these loads torch or matplotlib: {done.stdout}{done.stderr}"


def test_each_late_name_is_there_when_it_is_used():
    names = vars(late)["_places"]()  # which its stub has not
    assert {"grade", "Mock", "torch"} < set(names)
    for name, (module, own) in names.items():
        assert getattr(late, name) is (getattr(sys.modules[module], own) if own else sys.modules[module])
    with pytest.raises(AttributeError, match="'nothing'"):
        getattr(late, "nothing")  # noqa: B009


def test_doctor_reports_and_runs_ranks():
    result = plab("doctor")
    assert "2 real ranks agreed" in result.output and "progress.json (not begun)" in result.output
    assert result.exit_code == ("NO " in result.output)


def test_doctor_survives_a_broken_part(monkeypatch):
    def broken():
        raise RuntimeError("no such thing\nat all")

    assert str(doctor._safely(broken)).split() == ["NO", "broken", "RuntimeError:", "no", "such", "thing"]


def test_list_shows_exercises_and_questions():
    result = plab("list", "2")
    assert "ring_all_reduce" in result.output and "C7" in result.output and "not started" in result.output
    assert "02 Collectives" in result.output and "03 Data" not in result.output
    assert "23 What goes wrong" in plab("list").output


def test_list_of_no_chapter_is_one_line():
    result = plab("list", "77")
    assert result.exit_code == 1
    assert result.output.strip() == "Error: there is no chapter '77'; there are 00 to 24"


def test_check_runs_what_an_answer_uses_and_nothing_else(course):
    result = plab("check", "02_collectives")
    assert "ring_shift: solved, 3 of 3 tests passed" in result.output
    assert "ring_all_reduce: 02_collectives.ipynb does not define it" in result.output
    assert "never run" not in result.output
    assert result.exit_code == 1  # one is solved, three are missing
    assert "ring_shift" in plab("progress").output


def test_check_takes_the_name_of_an_exercise(course):
    result = plab("check", "ring_shift")
    assert result.exit_code == 0 and result.output.startswith("ring_shift: solved") and "tree" not in result.output
    assert "nearest are ring_shift" in plab("check", "ring_shfit").output


def test_check_as_json_names_what_is_solved_and_what_was_said(course):
    result = CliRunner().invoke(main, ["check", "02", "--json"])
    said = json.loads(result.stdout)
    (shift,) = [row for row in said["exercises"] if row["name"] == "ring_shift"]
    assert shift["passed"] and shift["score"] == 1 and [test["state"] for test in shift["tests"]] == ["passed"] * 3
    assert {row["name"]: row["said"] for row in said["exercises"] if not row["tests"]}["ring_all_reduce"]
    assert said["solved"] == 1 and said["of"] == len(said["exercises"]) > 3 and result.exit_code == 1


def test_another_persons_answers_are_checked_and_nothing_is_booked(tmp_path):
    for folder in ("notebooks", "exercises"):
        (tmp_path / "ada" / folder).mkdir(parents=True)
    save(tmp_path / "ada" / "exercises" / "02_collectives.ipynb", SHIFT)
    result = CliRunner().invoke(main, ["check", "ring_shift", "--work", str(tmp_path / "ada")])
    assert result.exit_code == 0 and "solved" in result.output
    assert not any(progress.read().values())
    missing = CliRunner().invoke(main, ["check", "03", "--work", str(tmp_path / "ada"), "--json"])
    assert missing.exit_code == 1 and "is not there yet" in json.loads(missing.stdout)["exercises"][0]["said"]


@pytest.mark.parametrize("words", [["check"], ["check", "02", "--all"], ["check", "--json"]])
def test_check_wants_one_name_or_all(words):
    result = plab(*words)
    assert result.exit_code == 1 and "or say --all" in result.output


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("\ndef f(:", "mine.ipynb, code cell 1, line 2, `def f(:`: SyntaxError"),
        ("import no_such_module\n\ndef ring_shift(t):\n    no_such_module", "`import no_such_module`: ModuleNotFound"),
    ],
)
def test_check_quotes_the_line_that_cannot_be_read(tmp_path, source, said):
    save("mine.ipynb", source)
    result = plab("check", "ring_shift", "mine.ipynb")
    assert said in result.output and len(result.output.splitlines()) == 1


def test_looking_at_what_the_course_gives_books_nothing():
    for notebook in ("00_start_here", "02_collectives"):
        plab("check", notebook, str(workspace.root() / "exercises" / f"{notebook}.ipynb"))
    hint("sum_of_ranks")
    assert not any(progress.read().values())


def test_a_real_answer_is_booked_and_opens_the_solution(course):
    assert plab("solution", "ring_shift").exit_code == 1
    save(course, SHIFT.replace("return received", "return tensor"))
    assert plab("check", "ring_shift").exit_code == 1
    shown = plab("solution", "ring_shift")
    assert shown.exit_code == 0 and "def ring_shift" in shown.output and "SOLUTION" not in shown.output
    assert "def ring_all_reduce" in plab("solution", "ring_all_reduce", "--yes").output


def test_a_damaged_progress_file_is_named_before_anything_is_written():
    file = progress.location()
    file.write_text("{ not JSON")
    result = plab("progress")
    assert result.exit_code == 0 and f"{file} is damaged" in result.output and "Nothing solved yet" in result.output
    assert file.read_text() == "{ not JSON"
    assert "damaged" not in plab("--version").output


def test_in_a_terminal_no_comment_is_gray_which_is_pale_on_white(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = solution._highlighted("a = b  # a sum")
    assert "\x1b[35m# a sum" in shown


def test_every_solution_can_be_shown():
    for name in tasks():
        assert f"def {name}(" in plab("solution", name, "--yes").output


def test_next_goes_through_the_course_to_its_end():
    first, *others = tasks()
    assert first in plab("next").output
    progress.record_exercise(first, 1)
    assert others[0] in plab("next").output
    own = tasks()[others[-1]].chapter
    assert next_exercise(passed=others[-1]).name == next(name for name in others if tasks()[name].chapter == own)
    for name in others:
        progress.record_exercise(name, 1)
    assert plab("next").output.startswith("Nothing is left to solve")


def nexts(passed):
    """What comes next, by name, in each place that says so; the report is of `passed`, solved."""
    exercise = EXERCISES[passed]
    said = [
        str(Report(exercise, [Verdict(title, "passed") for title in exercise.tests])),
        str(progress_table()),
        str(path_page("en")),
        plab("watch", passed).output,
    ]
    return {plab("next").output.splitlines()[1].split(":")[0]} | {re.findall(r"Next: (\w+)", one)[-1] for one in said}


def test_all_places_name_the_same_next_one_also_after_some_were_left_out(monkeypatch):
    days = iter(range(1, 9))

    def solve(name):
        at = datetime(2026, 11, next(days), tzinfo=UTC)
        monkeypatch.setattr(progress, "now", lambda: at)
        progress.record_exercise(name, 1)

    solve("sum_of_ranks")  # two gaps of its chapter were left out
    assert nexts("sum_of_ranks") == {"largest_model"}
    solve("largest_model")
    solve("held_up_by")  # the chapter is done
    assert nexts("held_up_by") == {"bytes_per_parameter"}
    solve("step_budget")
    assert nexts("step_budget") == {"bytes_per_parameter"}
    solve("ring_all_reduce")  # a chapter further on
    assert nexts("ring_all_reduce") == {"ring_chunks"}
    solve("sum_of_ranks")  # once more, which moves nothing
    assert nexts("sum_of_ranks") == {"ring_chunks"}


def test_what_passed_and_is_not_recorded_was_solved_last():
    progress.record_exercise("ring_all_reduce", 1)
    assert next_exercise(passed="sum_of_ranks").name == "largest_model"
    assert next_exercise().name == "ring_chunks"


def test_hints_come_one_after_the_other():
    assert "Hint 1 of" in plab("hint", "ring_shift").output
    assert "Hint 2 of" in plab("hint", "ring_shift").output
    assert "there is no exercise" in plab("hint", "nothing").output


def test_a_card_is_asked_before_it_is_answered():
    result = plab("ask", "C7", input="\nhalf\n")
    asked, answered = result.output.split("press Enter")
    assert "C7" in asked and "30-second" not in asked and "30-second" in answered
    assert progress.read()["cards"]["C7"]["known"] == "partly"
    assert "no question" in plab("ask", "Z99").output


@pytest.mark.parametrize(
    ("language", "head", "verdict"), [("en", "which plab review asks", "Half right."), ("zh", "知识点", "对一半。")]
)
def test_ask_lists_the_atoms_behind_the_answer_where_it_is_asked_to(language, head, verdict):
    shown = plab("ask", "C1", "--atoms", "--language", language, input="\ny\n").output
    assert head in shown and head not in plab("ask", "C1", input="\ny\n").output
    before, listed = shown.split(head)
    assert "press Enter" in before and "C1/mechanism" not in before
    kinds = ("mechanism", "formula", "number", "half-truth")
    assert [one for one in kinds if f"(C1/{one})" in listed] == list(kinds)
    for key in kinds:
        assert page.markdown(atom(f"C1/{key}").answered(language)).text in listed
    assert verdict in listed and "C1/follow-up" not in listed and "C1/definition" not in listed


def test_a_quiz_asks_until_the_answer_is_right():
    questions = quiz("02").questions
    right = ["abcdefghij"[one.right] if one.options else str(one.answer) for one in questions]
    result = plab("quiz", "2", input="\n".join(["nonsense", *right]) + "\n")
    assert "Not yet." in result.output and f"{len(right)} of {len(right)} right" in result.output
    assert progress.solved(progress.read()["quizzes"][quiz("02").name])


def test_watch_grades_each_save_and_moves_on(course, monkeypatch):
    for name, task in tasks().items():
        if task.chapter == "02" and name not in ("ring_shift", "ring_all_reduce"):
            progress.record_exercise(name, 1)
    wrong = "def ring_all_reduce(tensor):\n    return tensor"
    saves = [SHIFT + "\ndef ring_all_reduce(:", SHIFT + wrong]

    def wait(file, since):
        if not saves:
            raise KeyboardInterrupt
        save(file, saves.pop(0))

    monkeypatch.setattr(watch, "_wait", wait)
    result = plab("watch", "02")
    assert result.exit_code == 130 and result.output.rstrip().endswith("stopped")
    for said in ("does not define it", "SyntaxError", "ring_all_reduce: not yet"):
        assert said in result.output
    progress.record_exercise("ring_all_reduce", 1)
    assert "ring_shift: solved" in plab("watch", "02").output


def test_progress_is_in_the_order_of_the_course_with_totals():
    assert "Nothing solved yet." in plab("progress").output
    for name in ("ring_all_reduce", "sum_of_ranks"):
        progress.record_exercise(name, 1)
    progress.record_card("C7", "knew")
    output = plab("progress").output
    assert output.index("sum_of_ranks") < output.index("ring_all_reduce") < output.index("C7")
    assert "2 of " in output and "1 of " in output and "Next: " in output


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list"], ["progress"], ["next"]])
def test_what_only_looks_loads_nothing_heavy(arguments):
    program = (
        "import sys; from parallel_lab.cli import main; main(sys.argv[1:], standalone_mode=False);"
        "assert not {'torch', 'nbformat', 'jsonschema'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)


def test_help_cuts_no_line():
    output = " ".join(plab("--help").output.split())
    assert all(line in output for line in COMMANDS.values())


def test_tasks_are_the_exercises():
    shared = ("name", "title", "level", "minutes", "notebook", "gap", "chapter")
    for one, task in zip(EXERCISES.values(), tasks().values(), strict=True):
        assert [getattr(task, key) for key in shared] == [getattr(one, key, False) for key in shared]
        assert task.anchor, task.name


def test_list_is_short():
    lines = plab("list").output.splitlines()
    assert sum("no card yet" in line for line in lines) <= 24


def test_reset_asks_and_keeps_backups(course):
    course.write_text("my work")
    assert plab("reset", "02", input="n\n").exit_code == 130
    assert course.read_text() == "my work"
    assert plab("reset", "02", input="y\n").exit_code == 0
    assert course.read_text() == (workspace.root() / "exercises" / course.name).read_text()
    course.write_text("more work")
    assert plab("reset", "02_collectives", "--yes").exit_code == 0
    assert (course.parent / "02_collectives.ipynb.bak1").read_text() == "my work"
    assert (course.parent / "02_collectives.ipynb.bak2").read_text() == "more work"


PROGRAM = """import torch
import torch.distributed as dist
def main():
    x = torch.ones(10)
    dist.all_reduce(x)
    return int(x.sum())
def bad():
    raise ValueError("on purpose")
"""


def test_run_shows_results_and_bytes(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    result = plab("run", "program.py:main", "--ranks", "2", "--link", "1ms,100MB")
    assert result.exit_code == 0, result.output
    assert "rank 1 returned 20" in result.output and "40" in result.output


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("program.py:bad", "ValueError: on purpose"),
        ("program.py:none", "has no function 'none'"),
        ("program.py", "expected FILE.py:FUNCTION"),
        ("nowhere.py:main", "expected FILE.py:FUNCTION"),
        ("broken.py:main", "broken.py, line 1, `def (`: SyntaxError"),
    ],
)
def test_run_says_what_is_wrong(tmp_path, target, said):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text("def (")
    result = plab("run", target)
    assert result.exit_code == 1
    assert said in result.output and "Traceback" not in result.output


def test_interrupt_ends_with_130(monkeypatch, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(late, "launch", interrupted)
    result = plab("run", "program.py:main")
    assert result.exit_code == 130
    assert result.output.strip() == "stopped"


@pytest.mark.parametrize(
    ("text", "link"),
    [(None, None), ("1ms,100MB", Link(1e-3, 1e8)), ("50us,1GB/s", Link(5e-5, 1e9)), ("0.5,1e6", Link(0.5, 1e6))],
)
def test_links_as_people_type_them(text, link):
    found = parse_link(text)
    if link is None:
        assert found is None
    else:
        assert found and (found.latency_s, found.bytes_per_s) == pytest.approx((link.latency_s, link.bytes_per_s))


def test_link_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="expected LATENCY,BANDWIDTH"):
        parse_link("fast")
    assert isinstance(main, click.Group)


@pytest.mark.parametrize(
    ("mode", "well", "said"), [("Default", True, "take turns"), ("Exclusive_Process", False, "fails")]
)
def test_doctor_says_what_ranks_that_share_a_gpu_meet(monkeypatch, mode, well, said):
    monkeypatch.setattr(late.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(late.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(late.torch.cuda, "get_device_name", lambda i: "H100")
    monkeypatch.setattr(doctor, "_compute_modes", lambda: [mode])
    found = doctor._gpus()
    assert found.well is well and found.seen.startswith("H100; ") and said in found.seen
