"""`plab interview`: an interview by typed lines, in both languages; its report; what is wrong in one line; Ctrl-C."""

import json

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.interview import choosing, judged, rounds
from parallel_lab.interview.rounds import Turn


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)

    def log(case, language, dice):
        judge = lambda given: rounds.Judged(float(given == "a"), "")  # noqa: E731
        return Turn("log", "choice", f"clinic/{case.number}", "23", "which?", options=("x", "y"), judge=judge)

    monkeypatch.setattr(judged, "log", log)
    spoken = ("mechanism", "formula", "number", "half-truth")
    monkeypatch.setattr(choosing, "POINTS", spoken)  # all follow-ups are answered aloud
    return tmp_path


def plab(*arguments, typed=""):
    return CliRunner().invoke(main, ["interview", *arguments], input=typed)


SPOKEN = "notes\n1\n"


@pytest.mark.parametrize(("language", "words"), [("en", "Report of the interview"), ("zh", "面试报告")])
def test_an_interview_by_typed_lines(own, language, words):
    typed = SPOKEN * 3 + "7\n\n" + "b\na\n" + "nowhere.py\n\n"
    result = plab("--role", "lead", "--language", language, "--seed", "1", typed=typed)
    assert result.exit_code == 0, result.output
    assert words in result.output and "nowhere.py" in result.output
    (kept,) = json.loads((own / "progress.json").read_text())["interviews"].values()
    assert kept["finished"] and len(kept["turns"]) == 6
    again = plab("--report", "--language", language)
    assert again.exit_code == 0 and words in again.output and ("lead" in again.output or "训练负责人" in again.output)


def test_the_role_is_asked_and_wrong_ticks_are_asked_again(own):
    result = plab("--seed", "1", "--sure", typed="researcher\n80\n\n99\n1\n")
    assert "how sure" in result.output.lower() and "type numbers from 1 to" in result.output
    assert result.exit_code == 130 and "stopped" in result.output  # the input ends: as Ctrl-C
    (kept,) = json.loads((own / "progress.json").read_text())["interviews"].values()
    assert kept["role"] == "researcher" and len(kept["turns"]) == 1 and kept["turns"][0]["confidence"] == 0.8


def test_a_confidence_that_is_none_is_asked_again(own):
    typed = "very\n150\n80\n" + SPOKEN
    result = plab("--role", "lead", "--seed", "1", "--sure", typed=typed)
    assert result.output.count("Type a number from 0 to 100") == 2
    (kept,) = json.loads((own / "progress.json").read_text())["interviews"].values()
    assert kept["turns"][0]["confidence"] == 0.8


def test_code_is_graded_out_of_a_file(own):
    typed = SPOKEN * 3 + "\n" + "a\n"
    first = plab("--role", "lead", "--seed", "1", typed=typed)
    (stub,) = (own / "interview").glob("*.py")
    assert "raise NotImplementedError" in stub.read_text() and str(stub) in first.output
    stub.write_text("def nothing(:\n")
    result = plab("--role", "lead", "--seed", "1", typed=SPOKEN * 3 + "\n" + "a\n" + f"{stub}\n\n")
    assert stub.read_text() == "def nothing(:\n", "what the learner wrote stays"
    assert "not saved" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--role", "boss"], "'boss' is not one of"),
        (["--minutes", "20"], "'20' is not one of '15', '30', '45', '60'"),
        (["--language", "de"], "'de' is not one of"),
        (["--report"], "There is no interview in your progress yet"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said):
    result = plab(*arguments)
    assert result.exit_code != 0 and said in result.output and "Traceback" not in result.output


def test_a_wrong_language_of_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_LANGUAGE", "french")
    result = plab("--role", "lead")
    assert result.exit_code == 1 and "choose en for English" in result.output


def test_help():
    assert "mock interview" in plab("--help").output
