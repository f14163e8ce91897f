"""`plab clinic`: the list, a chart, a chart of one's own version, a diagnosis, and what is wrong in one line."""

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.clinic import CASES, CAUSES
from parallel_lab.course import progress

MINE = """import torch

def job(saved, samples, report):
    report(saved["model"], loss=torch.tensor(0.125))
    return saved["model"]
"""


def plab(*arguments):
    return CliRunner().invoke(main, ["clinic", *arguments])


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path / 'mine.py'}:job"


def test_complaints_and_causes_are_listed():
    listed, causes = plab().output, plab("causes").output
    assert all(case.title in listed for case in CASES.values())
    assert all(f"{name} (" in causes for name in CAUSES)
    assert not any(name in listed for name in CAUSES)


def test_a_case_shows_its_chart():
    result = plab("12")
    assert result.exit_code == 0 and "Case 12: " in result.output and "first_sample" in result.output


def test_a_version_of_ones_own_is_shown_and_judged(mine):
    assert "0.125" in plab("12", mine).output
    result = plab("12", mine, "--cause", "slow link")
    said = " ".join(result.output.split())
    assert result.exit_code == 1 and "Case 12: not yet." in said and "of 96 reads 96 are missing" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("99",), "there is no case 99: the clinic has 1, 2"),
        (("seven",), "'seven' is no case: expected a number"),
        (("7", "--cause", "slow link"), "--cause needs your mended job as well"),
        (("--cause", "slow link"), "--cause needs your mended job as well: plab clinic CASE"),
        (("7", "nothing.py:job"), "'nothing.py:job': expected FILE.py:FUNCTION with an existing file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said):
    result = plab(*arguments)
    assert result.exit_code == 1 and said in result.output and result.output.count("\n") == 1


def test_an_unknown_cause_gets_the_nearest(mine):
    result = plab("12", mine, "--cause", "slow lnk")
    assert result.exit_code == 1 and "the nearest are slow link" in result.output


def round_of(*arguments, said=""):
    return CliRunner().invoke(main, ["clinic", *arguments, "--round", "--seed", "1"], input=said)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)
    return lambda: list(progress.read()["rounds"].values())


def test_a_round_names_and_mends_a_hidden_case(kept, tmp_path, mine):
    file = tmp_path / "program.py"
    result = round_of("12", "--file", str(file), said="z\na\nb\nc\nd\n\ns\n")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "You have 15 minutes" in said and "The cause is right" in said and "Pick an option first" in said
    assert "The job is not mended. on 4 ranks" in said and "case 12 of the clinic" in said
    assert "def job" in file.read_text() and [one["found"] for one in kept()] == [True]


def test_a_round_takes_a_function_of_a_file_and_may_be_left(kept, mine):
    result = round_of("12", "--language", "zh", "--minutes", "5", said=f"\nnothing.py:job\n{mine}\n\n")
    assert result.exit_code == 0, result.output
    assert "expected FILE.py:FUNCTION" in result.output and "任务还没有修好" in result.output
    assert "限时 5 分钟" in result.output and [one["found"] for one in kept()] == [False]


def test_a_round_that_is_stopped_keeps_its_state(kept):
    result = round_of("12", said="")
    assert result.exit_code == 130 and [one["points"] for one in kept()] == [0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("7", "nothing.py:job"), "it takes no function and no --cause"),
        (("seven",), "'seven' is no case"),
        (("--minutes", "0"), "give more than 0"),
        (("99",), "there is no case 99"),
    ],
)
def test_what_is_wrong_with_a_round_is_said(kept, arguments, said):
    result = round_of(*arguments)
    assert result.exit_code == 1 and said in result.output


def test_a_file_is_never_overwritten(kept, tmp_path):
    file = tmp_path / "program.py"
    file.write_text("mine")
    result = round_of("12", "--file", str(file))
    assert result.exit_code == 1 and "exists already" in result.output and file.read_text() == "mine"
