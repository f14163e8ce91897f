"""The report: by topic what was strong and what was missing, the next steps, the way so far, in both languages."""

import pytest

from parallel_lab.course import progress
from parallel_lab.course.typed import UnknownName
from parallel_lab.interview import report as reports

OPENING = {"part": "deep", "kind": "speak", "key": "E5/definition", "chapter": "07", "ask": "How long?", "used_s": 60}
DRILL = {"part": "number", "kind": "number", "key": "drill/ring-bytes", "chapter": "02", "ask": "Bytes?", "used_s": 9}
CASE = {"part": "log", "kind": "choice", "key": "clinic/7", "chapter": "14", "ask": "Killed", "used_s": 9, "points": {}}
DESIGN = {"part": "design", "kind": "layout", "key": "design/llama3-8b-h100-ib-64", "chapter": "21", "ask": "8b"}


def kept(key, *turns, **more):
    record = {"role": "lead", "minutes": 15, "language": "en", "seed": 3, "used_s": 600, "finished": True}
    progress.record_interview(key, record | {"unreached": 0, "turns": list(turns)} | more)


def turn(one, result, **more):
    return {"used_s": 1, "points": {}, **one, "result": result, **more}


@pytest.fixture
def two():
    kept("2026-11-20T10:00:00+00:00", turn(OPENING, 0.0), turn(DRILL, 1.0))
    points = {"E5/definition#1": True, "E5/definition#2": False, "E5/gone": False}
    now = [turn(OPENING, 0.5, points=points, confidence=0.9), turn(DRILL, 1.0, confidence=0.7), turn(CASE, 0.0)]
    kept("2026-11-28T10:00:00+00:00", *now, turn(DESIGN, 0.2), unreached=1)


def test_by_topic_with_the_interviews_before(two):
    one = reports.report()
    assert one.topics == {"02": (1, 1.0, 1.0), "07": (1, 0.5, 0.0), "14": (1, 0.0, None), "21": (1, 0.2, None)}
    text = repr(one)
    assert "Against your 1 interviews before: 50% then, 42% now." in text
    assert "1 rounds were not reached" in text
    assert reports.report("2026-11-20T10:00:00+00:00").earlier == []


def test_what_was_missing_and_what_to_do_next(two):
    text = repr(reports.report())
    strong, missing = text.split("Strong\n")[1].split("Missing\n")
    assert "Bytes?" in strong and "Bytes?" not in missing
    assert "    - If layers lie on p GPUs" in missing, "the sentence that was not said"
    assert "in 07_model_parallel.ipynb" in missing and "plab clinic 7" in missing
    assert "plab plan --model llama3-8b --cluster h100-ib --gpus 64" in missing
    assert "Exercise step_bytes" in missing and "ring-bytes" not in missing
    html = reports.report()._repr_html_()
    assert 'href="07_model_parallel.ipynb#' in html and "#cell-id=" in html


def test_what_is_solved_is_not_proposed(two):
    assert "Exercise step_bytes" in repr(reports.report())
    progress.record_exercise("step_bytes", 1.0)
    assert "Exercise step_bytes" not in repr(reports.report())


def test_how_sure_one_was_against_what_came_of_it(two):
    assert [one[1:] for one in reports.report().calibration] == [(0.9, False), (0.7, True)]
    assert "80% on average, right in 50% of 2 answers; Brier score 0.45" in repr(reports.report())


def test_in_chinese(two):
    text = repr(reports.report(language="zh"))
    assert "面试报告" in text and "训练负责人" in text and "集合通信" in text and "层分到 p 张卡上" in text
    assert reports.report(language="zh")._repr_html_().count("<ul>") == 3, "what is missing stands below its question"
    assert 'lang="zh"' in reports.report(language="zh")._repr_html_()


def test_all_strong_says_so_and_the_first_interview_has_nothing_before_it():
    kept("2026-11-28T10:00:00+00:00", turn(DRILL, 1.0))
    text = repr(reports.report())
    assert "Nothing that was asked." in text and "your first interview" in text and "What to do next" not in text


def test_the_list(two):
    assert repr(reports.listed()).splitlines()[1].split()[1:] == ["training", "lead", "15", "50%"]


def test_without_an_interview_and_with_a_wrong_time():
    assert "begin with mock_interview()" in repr(reports.listed("en"))
    with pytest.raises(ValueError, match="plab interview"):
        reports.report()
    kept("2026-11-28T10:00:00+00:00", turn(DRILL, 1.0))
    with pytest.raises(UnknownName, match="2026-11-28T10"):
        reports.report("2026-11-27")
