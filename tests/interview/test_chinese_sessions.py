"""In Chinese nothing of the interview's own is English: of each kind of turn, and of the whiteboard, every line.

What others say, graders, programs, charts and the planner, is English; a line in Chinese above it says so.
"""

import re
from random import Random

import pytest

from parallel_lab.clinic import CASES
from parallel_lab.course.tasks import tasks
from parallel_lab.interview import designs, judged, rounds
from parallel_lab.interview import roles as interviews
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.boards import answered
from parallel_lab.interview.choosing import Chooser
from parallel_lab.interview.mock import Mock
from parallel_lab.interview.words import from_english

CHINESE = re.compile("[\u4e00-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]{2,},? [a-z]{2,}")  # two words; names and numbers are the same in both


def unannounced(*texts):
    """Lines in English above which no line in Chinese says that they are."""
    found, announced = [], False
    for line in "\n".join(filter(None, texts)).splitlines():
        announced = announced or "英文" in line
        if ENGLISH.search(line) and not CHINESE.search(line) and not announced:
            found.append(line)
    return found


def of_parts(parts):
    return [part.text for part in parts if "<code" not in part.html or CHINESE.search(part.text or "")]


@pytest.fixture
def said(monkeypatch, clock):
    """A function that puts a turn into an interview in Chinese: all that is said of it, and of what was answered."""

    def of(turn, *given):
        mock = Mock("lead", 15, "zh", seed=1)
        mock.turn = turn
        mock._note = type(mock._note)(turn) if mock._note else None
        asked = unannounced(turn.ask, turn.title, *turn.options, *of_parts(turn.shown))
        replies = [unannounced(*of_parts(mock.answer(one).parts)) for one in given]
        shown = unannounced(*of_parts(mock.reveal().parts))
        return [asked, *replies, shown]

    return of


def test_a_line_in_english_is_found_unless_it_is_announced():
    assert unannounced("对。", "Not yet, 0 of 4") == ["Not yet, 0 of 4"]
    assert unannounced("以下评分报告为英文：", "not yet, 0 of 4") == []


def test_what_is_spoken_a_number_and_a_half_truth(said):
    for kind in ("mechanism", "number", "half-truth"):
        atom = next(one for one in atoms().values() if one.kind == kind)
        for lines in said(rounds.follow_up(atom, "deep", "zh"), "many", "1e30", "a"):
            assert lines == [], kind
    for lines in said(rounds.opening("E5", "deep", "zh"), ""):
        assert lines == []


def test_a_log(said):
    for lines in said(judged.log(CASES[12], "zh", Random(1)), "z", "a", "b", "c", "d"):
        assert lines == []


def test_a_drill(said, clock):
    problem = Chooser(interviews.role_named("lead"), Random(0), clock()).drill()
    for lines in said(judged.number(problem, "zh", Random(1)), "many", "1e30", "0"):
        assert lines == []


STUB = "def wrong_suspect(waited_s, exchange_s):\n    raise NotImplementedError"
WRONG = "def wrong_suspect(waited_s, exchange_s):\n    return 0"


def test_code(said):
    task = tasks()["wrong_suspect"]
    for lines in said(judged.code(task, "zh"), "def f(:", "raise OSError(3)", "x = 1", STUB, WRONG):
        assert lines == []
    judge = judged.code(task, "zh").judge
    assert judge and "以下评分报告为英文：" in judge(WRONG).said
    assert "还没有开始写" in judge(STUB).said
    english = judged.code(task, "en").judge
    assert english and english(WRONG).said.startswith("wrong_suspect: not yet")


def test_a_round_that_is_left_out(monkeypatch, clock):
    def broken(case, language, dice):
        raise RuntimeError("the fork server did not start")

    monkeypatch.setattr(judged, "log", broken)
    mock = Mock("lead", 15, "zh", seed=1)
    while mock.turn:
        mock.go_on()
    assert mock.warning == "略过一轮：（以下为英文）the fork server did not start"


def test_a_design(said):
    one = min(interviews.designs(), key=lambda one: one.gpus)
    for lines in said(designs.design(one, "zh"), "", "hello", "tp=3", "tp=0", "tp=x", "zero=9", "batch=0", "tp=1"):
        assert lines == []


@pytest.mark.parametrize(
    "written",
    [
        "0F0 0F1 0B0 0B1\n1F0 1B0 1F1 1B1",
        "0F0 0B0 0F0",
        "llama3-8b on 64 h100-ib: tp=8 pp=2 dp=4",
        "llama3-8b on 64 h100-ib: tp=8 wide",
        "llama3-8b on 64 h100-ib: tp=3",
        "llama3-8b on 0 h100-ib: tp=8",
        "llama3-70b on 8 h100-ib: tp=1",
        "x = (",
    ],
)
def test_the_whiteboard(written):
    assert unannounced(*of_parts(answered(written, language="zh", ranks=2).as_page().parts)) == []


def test_what_has_no_translation_is_said_to_be_english():
    assert from_english("nothing is known of it", "zh") == "（以下为英文）nothing is known of it"
    assert from_english("nothing is known of it", "en") == "nothing is known of it"
    assert from_english("your lines raise OSError: 3", "zh") == "你的代码抛出了异常 OSError：3"
    assert from_english("请写数字", "zh") == "请写数字"
