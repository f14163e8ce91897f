from functools import partial
from random import Random

import pytest
from click.testing import CliRunner

from parallel_lab.cli import drill as drill_command
from parallel_lab.cli import main
from parallel_lab.course import practice, progress, sprints
from parallel_lab.course.drills import problems


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def plab(*arguments, typed=""):
    return CliRunner().invoke(main, ["drill", *arguments], input=typed)


@pytest.fixture
def known(monkeypatch):
    """Drills with seed 5, and the right answer to the first one."""
    monkeypatch.setattr(drill_command, "drill", lambda name, **rest: practice.drill(name, 5, **rest))
    return problems()["pipeline-bubble"].draw(Random(5))


def test_a_problem_is_asked_judged_and_derived(known):
    result = plab("pipeline-bubble", typed=f"-1\n{known.answer:.6g}\n")
    assert result.exit_code == 0 and known.question in result.output and known.steps[-1] in result.output
    assert "Not yet." in result.output and "Right." in result.output
    assert progress.read()["drills"]["pipeline-bubble"]["right"] == 1


def test_a_chapter_asks_one_of_its_drills_and_enter_shows_the_solution():
    result = plab("--chapter", "9", "--times", "2", typed="\n\n")
    assert result.exit_code == 0 and result.output.count("Answer:") == 2 and "1. " in result.output


def test_without_arguments_the_drills_are_listed():
    output = plab().output
    assert all(name in output for name in problems())


def test_a_sprint_asks_until_it_is_stopped_and_keeps_the_score(monkeypatch):
    first = sprints.sprint(5, "09", seed=3).start().ask()
    monkeypatch.setattr(sprints, "sprint", partial(sprints.sprint, seed=3))
    result = plab("--sprint", "--minutes", "5", "--chapter", "09", typed=f"{first.drawn.answer:.6g}\n\n")
    assert result.exit_code == 130, "the input ended, as with Ctrl-C"
    assert "Score 1: 1 solved at once, 0 after a wrong answer." in result.output and "score 0] " in result.output
    (kept,) = progress.read()["sprints"].values()
    assert kept["score"] == 1 and kept["chapter"] == "09"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ring-byte",), "there is no drill 'ring-byte'; the nearest are ring-bytes"),
        (("--chapter", "88"), "there is no chapter with drills '88'"),
        (("--sprint", "ring-bytes"), "leave out NAME and --times"),
        (("--minutes", "3"), "--minutes is for a sprint"),
        (("ring-bytes", "--chapter", "09"), "ring-bytes is one of chapter 02"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said):
    result = plab(*arguments)
    assert result.exit_code == 1 and said in result.output and result.output.count("\n") == 1


def test_help_shows_examples():
    assert "plab drill --sprint" in " ".join(plab("--help").output.split())


def test_a_drill_is_asked_judged_and_derived_in_chinese():
    result = plab("pipeline-bubble", "--language", "zh", typed="-1\n\n")
    assert result.exit_code == 0 and "气泡占一步的百分之几" in result.output
    assert "还不对。 偏小。" in result.output and "空闲 / 一步" in result.output
