"""The drills in Chinese: the same numbers, every sentence there and none left over, the words of the glossary."""

import re
from random import Random

import pytest

from parallel_lab import drill, sprint
from parallel_lab.course.drills import listed, problems
from parallel_lab.course.drills.chinese import NUMBER, spoken_in
from parallel_lab.course.practice import Attempt
from parallel_lab.course.spoken import hint, language_of, say
from parallel_lab.course.terms import read

CHINESE = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
SEEDS = 300


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


@pytest.mark.parametrize("name", listed())
def test_both_languages_ask_with_the_same_numbers(name):
    for seed in range(60):
        drawn = problems()[name].draw(Random(seed))
        chinese = spoken_in("zh", name, drawn)
        assert sorted(NUMBER.findall(chinese.question)) == sorted(NUMBER.findall(drawn.question))
        assert CHINESE.search(chinese.question) and "{" not in chinese.question
        assert [value for value, _ in chinese.wrong] == [value for value, _ in drawn.wrong]
        assert spoken_in("en", name, drawn) is drawn


def test_every_sentence_is_there_and_none_is_left_over():
    said = {said for one in problems().values() for seed in range(SEEDS) for _, said in one.draw(Random(seed)).wrong}
    chinese = read("mistakes_zh")
    assert set(chinese) == said
    for english, text in chinese.items():
        assert CHINESE.search(text) and text.endswith("。")
        digits = re.findall(r"\d+(?:\.\d+)?", text)
        assert not set(digits) - set(re.findall(r"\d+(?:\.\d+)?", english)), (english, text)
    assert set(read("drills_zh")) == set(listed())


FORMULA = re.compile(
    r"\b(?:min|max|sqrt|exp|FLOPs?|TFLOP|Gbit|GPUs?|tokens|algbw|busbw|mean|steps|order|[kMG]?B|[kMG]iB|[mnµ]?s)\b"
)


@pytest.mark.parametrize("name", listed())
def test_each_step_is_chinese_with_the_same_numbers_or_a_formula(name):
    for seed in range(200):
        drawn = problems()[name].draw(Random(seed))
        for english, chinese in zip(drawn.steps, spoken_in("zh", name, drawn).steps, strict=True):
            assert sorted(NUMBER.findall(chinese)) == sorted(NUMBER.findall(english))
            words = re.findall(r"[A-Za-z]{3,}", FORMULA.sub("", english))
            assert CHINESE.search(chinese) or not words, english


def test_the_words_are_those_of_the_glossary():
    written = str([read(name) for name in ("drills_zh", "mistakes_zh", "derivations_zh", "practice_words")])
    assert {word for row in read("glossary") for word in row["not"] if word in written} == set()


def test_both_languages_of_a_text_have_the_same_fields():
    for key, text in read("practice_words").items():
        if key not in ("hints", "units"):
            assert sorted(re.findall(r"\{\w*\}", text["en"])) == sorted(re.findall(r"\{\w*\}", text["zh"])), key


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("Too large.", "偏大。"),
        ("Too small by a factor of 1000 (a unit prefix?).", "偏小，答案是它的 1000 倍（单位前缀弄错了？）。"),
        ("'x' is not a number: write 1500000, 1.5e6 or 1,500,000.", "'x' 不是一个数：写 1500000、1.5e6 或 1,500,000。"),
        (
            "'1,5' is not a number here: the decimal sign is a point, 1.5.",
            "'1,5' 在这里不是一个数：小数点用点，写 1.5。",
        ),
        ("'3 s': the unit asked for is MB.", "'3 s'：要求的单位是 MB。"),
        ("Something new.", "Something new."),
    ],
)
def test_the_usual_hints_are_said_in_chinese(english, chinese):
    assert hint(english, "zh") == chinese and hint(english, "en") == english


def test_a_drill_and_a_sprint_speak_chinese(monkeypatch, by_kind):
    form = drill("pipeline-bubble", 5, language="zh").form()
    words = [one.description for one in by_kind(form, "Button")]
    assert words == ["检查", "看解答", "换一组数"]
    one = drill("pipeline-bubble", 5, language="zh").attempt()
    assert one.answer("-3") == (False, "偏小。")
    assert one.answer(f"{one.drawn.wrong[0][0]:.6g}")[1].startswith("这是空闲时间与工作时间之比")
    monkeypatch.setenv("PARALLEL_LAB_LANGUAGE", "zh")
    text = repr(sprint(5, "09"))
    assert "第 09 章，5 分钟" in text and "--language zh" in text
    race = sprint(5, "09").start()
    assert isinstance(race.ask(), Attempt) and CHINESE.search(race.tried[0].drawn.question)
    assert "得分 0" in repr(race.report())


def test_a_language_that_is_not_there_says_so(monkeypatch):
    with pytest.raises(ValueError, match="there is no language 'fr': choose en"):
        drill("ring-bytes", language="fr")
    monkeypatch.setenv("PARALLEL_LAB_LANGUAGE", "de")
    with pytest.raises(ValueError, match="from PARALLEL_LAB_LANGUAGE"):
        language_of()
    assert say("right", "zh") == "对"
