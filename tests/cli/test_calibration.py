"""`plab calibration` and `plab evidence`: what they show, and what is wrong in a sentence."""

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.course import progress


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)


def plab(*arguments):
    return CliRunner().invoke(main, arguments)


def test_the_score_and_the_picture(tmp_path):
    for rating, sure in ((3, 0.9), (1, 0.8), (3, 0.5)):
        progress.record_review("E5/definition", rating, "self", sure)
    result = plab("calibration", "--chapter", "07", "--png", str(tmp_path / "curve.png"))
    assert result.exit_code == 0 and "3 answers: on average" in result.output
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "共 3 次回答" in plab("calibration", "--language", "zh").output


def test_without_answers_no_picture_is_written(tmp_path):
    assert "no answer with a confidence" in plab("calibration").output
    result = plab("calibration", "--png", str(tmp_path / "curve.png"))
    assert result.exit_code == 1 and "no answer with a confidence" in result.output and not list(tmp_path.glob("*.png"))


def test_a_chapter_that_is_none_is_said():
    result = plab("calibration", "--chapter", "77")
    assert result.exit_code == 1 and "There is no chapter '77'" in result.output


def test_evidence_is_run_in_the_terminal():
    result = plab("evidence", "E14", "--language", "zh")
    assert result.exit_code == 0 and "E14 的证据" in result.output and "memory:" in result.output
    assert "plab evidence E5" in plab("evidence", "--help").output


def test_an_unknown_card_names_the_nearest():
    result = plab("evidence", "E555")
    assert result.exit_code == 1 and "the nearest are" in result.output


@pytest.mark.parametrize("command", ["calibration", "evidence"])
def test_a_language_that_is_none_ends_in_a_sentence(command, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_LANGUAGE", "fr")
    result = plab(command, *(["E14"] if command == "evidence" else []))
    assert result.exit_code == 1 and "choose en for English" in result.output
