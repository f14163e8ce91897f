"""What interview mode says, in English and in Chinese: `say("clock.left", "zh", minutes=4)`.

Every visible text stands in `words.yaml` under a key, `module.what`, once a language, with the same `{names}` in both.
"""

import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.course.typed import named

VARIABLE = "PARALLEL_LAB_LANGUAGE"
LANGUAGES = ("en", "zh")
_FILE = files("parallel_lab.interview").joinpath("words.yaml")


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


@cache
def words() -> Mapping[str, Mapping[str, str]]:
    """All texts by key and language."""
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


def say(key: str, language: str, **values: Any) -> str:
    """The text `key` in `language`, with its `{names}` filled from `values`.

    Raises:
        UnknownName: there is no such text.
    """
    return named("text", key, words())[language].format(**values)


def lang(language: str) -> str:
    """The `lang` attribute of a part of a page: empty where the text is English, as the page is."""
    return "" if language == "en" else "zh"
