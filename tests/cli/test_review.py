"""`plab review`, `plab prepare`, `plab progress --merge`: a run by keyboard, help, and what is wrong in one line."""

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.course import progress


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)
    return tmp_path / "progress.json"


def plab(*arguments, typed=""):
    return CliRunner().invoke(main, arguments, input=typed)


def test_each_has_help():
    for name in ("review", "prepare", "progress"):
        result = plab(name, "--help")
        assert result.exit_code == 0 and "Example" in result.output


def test_a_review_is_answered_by_keyboard_and_kept_when_it_is_stopped():
    result = plab("review", "--chapter", "07", "--minutes", "10", typed="much\n75\n\n9\n3\n")
    assert "about 10 minutes" in result.output and "Type a number from 0 to 100" in result.output
    assert "What is model-parallel computation?" in result.output and "Again in 10 min." in result.output
    assert result.exit_code == 130 and "stopped" in result.output
    (event,) = progress.read()["reviews"]["A1/definition"]["log"]
    assert (event["rating"], event["from"], event["confidence"]) == (3, "self", 0.75)


def test_it_is_answered_to_the_end_in_chinese():
    result = plab("review", "--language", "zh", "--chapter", "09", "--minutes", "1", "--no-sure", typed="\n4\n")
    assert result.exit_code == 0 and "流水线并行是什么？" in result.output and "问了 1 项，会 1 项。" in result.output


def test_a_half_truth_and_a_number_are_judged(monkeypatch):
    """What was missed longer ago is asked first."""
    now = progress.now()
    for key, hours in {"A5/number": 2, "A5/half-truth": 1}.items():
        with monkeypatch.context() as then:
            then.setattr(progress, "now", lambda ago=hours: now - timedelta(hours=ago))
            progress.record_review(key, 1, "self")
    result = plab("review", "--chapter", "09", "--minutes", "2", "--no-sure", typed="1e9\n\nz\na\n")
    assert "a) Right" in result.output and "Pick an option first." in result.output
    assert [len(progress.read()["reviews"][key]["log"]) for key in ("A5/half-truth", "A5/number")] == [2, 2]


def test_a_plan_is_made_shown_and_forgotten(tmp_path):
    assert "no date yet" in plab("prepare").output
    day = progress.now().astimezone().date().replace(year=progress.now().year + 1)
    result = plab("prepare", "--date", str(day), "--picture", str(tmp_path / "plan.png"))
    assert result.exit_code == 0 and "begin by" in result.output
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    assert "面试之前的计划" in plab("prepare", "--language", "zh").output
    assert "forgotten" in plab("prepare", "--forget").output and plab("prepare").exit_code == 1


def test_two_machines_are_merged(file, tmp_path):
    progress.record_review("E5/formula", 3, "self")
    other = json.loads(file.read_text())
    other["reviews"]["E5/formula"]["log"][0]["at"] = "2026-01-01T00:00:00+00:00"
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert plab("progress", "--merge", str(tmp_path / "other.json")).exit_code == 0
    assert len(progress.read()["reviews"]["E5/formula"]["log"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["review", "--chapter", "77"], "Error: There is no chapter '77'"),
        (["review", "--minutes", "0"], "are no time to review in"),
        (["review", "--minutes", "nan"], "are no time to review in"),
        (["prepare", "--date", "soon"], "Error: 'soon' is no date"),
        (["progress", "--merge", "nothing.json"], "Error: nothing.json: there is no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, said):
    result = plab(*arguments)
    assert result.exit_code == 1 and said in result.output and "Traceback" not in result.output
