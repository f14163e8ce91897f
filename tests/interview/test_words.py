"""Every text of interview mode stands in both languages, with the same names to fill in."""

import re
import string

import pytest

from parallel_lab.course.chapters import TITLES
from parallel_lab.course.typed import UnknownName
from parallel_lab.interview.words import LANGUAGES, language_of, say, words


def test_every_text_stands_in_both_languages():
    for key, texts in words().items():
        assert tuple(texts) == LANGUAGES, key
        assert all(texts.values()), key
        fields = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in texts.values()]
        assert fields[0] == fields[1], key
        left = re.sub(r"\{.*?\}", "", texts["zh"])
        assert not re.search(r"\w", left) or re.search("[\u4e00-\u9fff]", left), f"{key} has no Chinese"


def test_say_fills_in_and_names_the_nearest():
    assert say("common.right", "en") == "Right."
    assert "plab" in say("common.where", "zh", command="plab interview")
    with pytest.raises(UnknownName, match="nearest"):
        say("common.rihgt", "en")


def test_the_language(monkeypatch):
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)
    assert language_of() == "en"
    assert language_of("zh") == "zh"
    monkeypatch.setenv("PARALLEL_LAB_LANGUAGE", "zh")
    assert language_of() == "zh"
    with pytest.raises(ValueError, match="choose en for English"):
        language_of("de")
    monkeypatch.setenv("PARALLEL_LAB_LANGUAGE", "fr")
    with pytest.raises(ValueError, match="PARALLEL_LAB_LANGUAGE"):
        language_of()


def test_a_chapter_is_called_in_english_as_the_course_calls_it():
    assert {number: say(f"chapter.{number}", "en") for number in TITLES} == TITLES
