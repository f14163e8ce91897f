"""The letters and the words of the course: one letter for one thing, one Chinese word for one term."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.course import page


@cache
def read(name: str, room: str = "course") -> Any:
    """What stands in `name.yaml` of a room: symbols by letter, the rows of the glossary, texts by key."""
    return yaml.safe_load(files(f"parallel_lab.{room}").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


def symbols(chapter: str = "") -> page.Page:
    """The letters of the course; of `chapter`, two digits, only those that it leans on."""
    rows = [
        (letter, what, unit, zh)
        for letter, (what, unit, zh, chapters) in read("symbols").items()
        if chapter in str(chapters)
    ]
    head = page.paragraph("Letters" if chapter else "The letters of the course", "head")
    return page.Page("Symbols", [head, page.table(("letter", "what it is", "unit", "中文"), rows)])


def glossary() -> page.Page:
    """The terms of the course in English and in Chinese."""
    rows = [(row["en"], row["zh"]) for row in read("glossary")]
    return page.Page("Glossary", [page.paragraph("English and Chinese", "head"), page.table(("English", "中文"), rows)])
