"""`plab clinic`: the list, a chart, a chart of one's own version, a diagnosis, and what is wrong in one line."""

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.clinic import CASES, CAUSES

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
