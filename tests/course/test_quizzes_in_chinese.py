"""The self-checks say in Chinese what they say in English: the same options, the same numbers and code."""

import re
from collections import Counter

import pytest

from parallel_lab.course.asked import Choice
from parallel_lab.course.quizzes import quiz, sheets

PAIRS = [
    (f"{chapter}-{n}", one, other)
    for chapter, sheet in sheets().items()
    for n, (one, other) in enumerate(zip(sheet.quiz, sheets("zh")[chapter].quiz, strict=True), 1)
]
KEPT = re.compile(r"`[^`]+`|\d[\d,.]*(?<![,.])")


def texts(one):
    """Question, reason, options, notes and what is said to a known mistake, each by itself."""
    return [
        one.question,
        one.why,
        *one.options,
        *getattr(one, "notes", ()),
        *(said for _, said in getattr(one, "wrong", ())),
    ]


@pytest.mark.parametrize(("one", "other"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_both_say_the_same(one, other):
    assert type(one) is type(other)
    assert len(texts(one)) == len(texts(other))
    for english, chinese in zip(texts(one), texts(other), strict=True):
        assert bool(english) == bool(chinese)
        assert Counter(KEPT.findall(english)) == Counter(KEPT.findall(chinese)), chinese
    assert re.search(r"[\u4e00-\u9fff]", other.question)
    assert not re.search(r"[\u4e00-\u9fff]", one.question)
    if isinstance(one, Choice):
        assert one.right == other.right
    else:
        assert (one.answer, one.unit, one.tolerance) == (other.answer, other.unit, other.tolerance)


def test_a_quiz_is_asked_in_chinese():
    asked = quiz("00", "zh")
    assert "自测" in repr(asked) and "单位：MB" in repr(asked) and "--language zh" in repr(asked)
    right, said = asked.answer(1, "a")
    assert not right and said.startswith("不是 a）")
    assert asked.answer(0, "5")[1].startswith("偏小")
    right, said = asked.answer(0, "700")
    assert right and "一千个" in said


def test_the_language_of_the_environment_and_an_unknown_one(monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_LANGUAGE", "zh")
    assert quiz("00").language == "zh"
    with pytest.raises(ValueError, match="choose en"):
        quiz("00", "fr")
