"""What interview mode says, in English and in Chinese: `say("clock.left", "zh", minutes=4)`.

Every visible text stands in `words.yaml` under a key, `module.what`, once a language, with the same `{names}` in both.
"""

import re
from collections.abc import Mapping
from typing import Any

from parallel_lab.course.spoken import LANGUAGES, VARIABLE, hint, lang, language_of, unit_in
from parallel_lab.course.terms import read
from parallel_lab.course.typed import named

__all__ = ["LANGUAGES", "VARIABLE", "VOICES", "from_english", "in_unit", "lang", "language_of", "say", "words"]
_CHINESE = re.compile("[\u4e00-\u9fff]")
VOICES = {"en": "en-US", "zh": "zh-CN"}  # of a browser, by language


def words() -> Mapping[str, Mapping[str, str]]:
    """All texts by key and language."""
    return read("words", "interview")


def say(key: str, language: str, **values: Any) -> str:
    """The text `key` in `language`, with its `{names}` filled from `values`.

    Raises:
        UnknownName: there is no such text.
    """
    return named("text", key, words())[language].format(**values)


def from_english(said: str, language: str) -> str:
    """What something else says in English, in `language`; where there is no translation, it is said to be English."""
    own = hint(said, language)
    named = language == "en" or own != said or _CHINESE.search(said)
    return own if named else say("common.english", language, said=said)


def in_unit(unit: str, language: str) -> str:
    """What stands behind a question that asks for a number in `unit`, ` (in GB)`; empty where there is none."""
    return say("review.unit", language, unit=unit_in(unit, language)) if unit else ""
