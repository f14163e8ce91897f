"""The two languages of practice: which one is asked for, and what drills and sprints say in it."""

import os
import re
from typing import Any

from parallel_lab.course.terms import read

VARIABLE = "PARALLEL_LAB_LANGUAGE"
LANGUAGES = ("en", "zh")


def language_of(chosen: str | None = None) -> str:
    """The language that was `chosen`; without one, that of the environment variable, else English.

    Raises:
        ValueError: it is neither `en` nor `zh`.
    """
    language = chosen or os.environ.get(VARIABLE) or "en"
    if language not in LANGUAGES:
        where = "" if chosen else f" (from {VARIABLE})"
        raise ValueError(f"there is no language {language!r}{where}: choose en for English or zh for Chinese")
    return language


def lang(language: str) -> str:
    """The `lang` attribute of a part of a page: empty where the text is English, as the page is."""
    return "" if language == "en" else "zh"


def say(key: str, language: str, **values: Any) -> str:
    """The text `key` of `practice_words.yaml`, with its `{names}` filled from `values`."""
    return read("practice_words")[key][language].format(**values)


def unit_in(unit: str, language: str) -> str:
    """A unit in `language`; one that is no word, as GB, is the same in both."""
    return unit if language == "en" else read("practice_words")["units"].get(unit, unit)


def in_unit(asked: Any, language: str) -> str:
    """The question of `asked`, with the unit of the answer where it has one."""
    unit = unit_in(asked.unit, language)
    return say("in-unit", language, question=asked.question, unit=unit) if unit else asked.question


def title_in(name: str, english: str, language: str) -> str:
    """The title of the exercise or drill `name` in `language`."""
    if language == "en":
        return english
    return read("tasks_zh").get(name) or read("drill_titles_zh").get(name, english)


def hint(said: str, language: str) -> str:
    """What is said of a wrong number, which is written in English, in `language`; as it is where nothing is known."""
    if language == "en":
        return said
    for english, chinese in read("practice_words")["hints"].items():
        if match := re.fullmatch(re.sub(r"\\\{\d\\\}", "(.+)", re.escape(english)), said):
            return chinese.format(*match.groups())
    return said
