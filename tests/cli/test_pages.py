"""`plab path`, `plab night`, `plab badge`: what they print and write, and what is wrong in one line."""

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.course import progress
from parallel_lab.interview.printing import VARIABLE

WRITERS = {"path": "--png", "night": "--html", "badge": "--html"}


def plab(*arguments):
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", WRITERS)
def test_help_and_a_folder_that_is_not_there(name):
    assert plab(name, "--help").exit_code == 0 and "--language" in plab(name, "--help").output
    result = plab(name, WRITERS[name], "none/file")
    last = result.output.splitlines()[-1]
    assert result.exit_code == 1 and last.startswith("Error: none/file: there is no folder none")


@pytest.mark.parametrize("name", ["night", "badge"])
def test_a_file_that_cannot_be_written_is_named(name, in_a_folder, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", ".plab-x1")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refused)
    result = plab(name, "--html", "page.html")
    assert result.exit_code == 1 and "Error: page.html: Permission denied" in result.output


def test_the_path_is_a_table_and_a_picture(in_a_folder):
    result = plab("path", "--png", "path.png", "--language", "zh")
    assert result.exit_code == 0 and "下一个：" in result.output and "09 流水线并行" in result.output
    assert (in_a_folder / "path.png").read_bytes().startswith(b"\x89PNG")


def test_the_night_before_is_written_as_html(in_a_folder):
    result = plab("night", "--html", "night.html")
    assert result.exit_code == 0 and "Written: night.html" in result.output
    assert "<math" in (in_a_folder / "night.html").read_text(encoding="utf-8")


def test_without_a_browser_the_html_is_there_and_a_sentence_says_so(in_a_folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "no-such-browser")
    result = plab("night")
    assert result.exit_code == 1 and "no-such-browser" in result.output.splitlines()[-1]
    assert (in_a_folder / "night-before.html").is_file() and not (in_a_folder / "night-before.pdf").exists()


def test_the_badge_is_printed_and_written(in_a_folder):
    progress.record_exercise("ring_shift", 1.0)
    assert "ring_shift" in plab("badge").output
    assert plab("badge", "--html", "badge.html", "--name", "Li Wei").exit_code == 0
    assert "Li Wei" in (in_a_folder / "badge.html").read_text(encoding="utf-8")


def test_a_solution_that_is_shown_is_remembered():
    assert plab("solution", "ring_shift").exit_code == 1 and not progress.read()["exercises"]
    assert plab("solution", "ring_shift", "--yes").exit_code == 0
    assert progress.read()["exercises"]["ring_shift"]["solution_first"] is True


def test_a_look_at_a_solution_is_said_to_be_noted_as_the_badge_tells_it():
    said = "noted in your progress. plab badge will say: solution seen"
    progress.record_exercise("ring_shift", 0.5)
    assert f"ring_shift: {said} before it was solved." in plab("solution", "ring_shift").stderr
    progress.record_exercise("ring_shift", 1.0)
    assert f"{said} before it was solved." in plab("solution", "ring_shift").stderr  # the first look counts
    progress.record_exercise("sum_of_ranks", 1.0)
    shown = plab("solution", "sum_of_ranks")
    assert f"{said} afterwards." in shown.stderr and "noted" not in shown.stdout


def test_the_solution_of_an_exercise_in_steps_is_not_shown_by_the_way():
    progress.record_exercise("ring_all_reduce", 0.4)  # its first step
    early = plab("solution", "ring_all_reduce")
    assert early.exit_code == 1 and "def ring" not in early.output
    assert "shows all 3 steps" in early.output and "add --all" in early.output and "plab badge tells it" in early.output
    assert "solution" not in progress.read()["exercises"]["ring_all_reduce"]
    assert "def ring_all_reduce" in plab("solution", "ring_all_reduce", "--all").output
    assert plab("solution", "step_budget", "--all").exit_code == 1  # nothing of it was tried
    progress.record_exercise("ring_all_reduce", 1.0)
    assert "def ring_all_reduce" in plab("solution", "ring_all_reduce").output


PAGES = {
    "path": "parallel_lab.interview.course_path.path_page",
    "night": "parallel_lab.interview.night.write_night",
    "badge": "parallel_lab.cli.badge.badge",
}


def test_ctrl_c_ends_them(monkeypatch):
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    for name, place in PAGES.items():
        plab(name, "--help")
        monkeypatch.setattr(place, stop)
        assert plab(name).exit_code == 130
