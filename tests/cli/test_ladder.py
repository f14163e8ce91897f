"""`plab ladder`: sentences judged from piped answers, in both languages; the score is kept where one stops."""

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.course import progress


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)


def plab(*arguments, said=""):
    return CliRunner().invoke(main, ["ladder", *arguments], input=said)


def test_help_says_what_it_is():
    result = plab("--help")
    assert (
        result.exit_code == 0
        and "right, half right or wrong" in result.output
        and "plab ladder --count 3" in result.output
    )


def test_a_sentence_is_judged_and_the_evidence_is_run():
    # chapter 21; a confidence that is none, then one; a verdict; a number that is given up; the evidence
    result = plab("--chapter", "21", "--count", "1", "--seed", "1", said="much\n80\nh\n\ny\n")
    assert result.exit_code == 0, result.output
    assert "from 0 to 100" in result.output and "The evidence for" in result.output and "of 4 points" in result.output
    (log,) = (entry["log"] for key, entry in progress.read()["reviews"].items() if key.endswith("half-truth"))
    assert (log[0]["from"], log[0]["confidence"]) == ("ladder", 0.8)


def test_in_chinese_and_stopped():
    result = plab("--count", "2", "--language", "zh", "--seed", "2", said="\nw\n")
    assert result.exit_code == 130 and "第 1 句，共 2 句" in result.output and "满分 2 分" in result.output
    assert [one["kind"] for one in progress.read()["rounds"].values()] == ["ladder"]


def test_what_is_wrong_is_one_line():
    result = plab("--chapter", "99")
    assert result.exit_code == 1 and "There is no chapter '99'" in result.output
