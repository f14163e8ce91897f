"""One letter for one thing, one Chinese word for one term, plain English: cards and chapters keep to it."""

import json
import re
from pathlib import Path

import pytest

from parallel_lab import symbols
from parallel_lab.course.chapters import TITLES
from parallel_lab.course.questions import FOLDER
from parallel_lab.course.terms import glossary, read

ROOT = Path(__file__).resolve().parents[2]
GRADING, INTERVIEW = ROOT / "parallel_lab/grading", ROOT / "parallel_lab/interview"
NOTES = {path.name: path.read_text(encoding="utf-8") for path in sorted(GRADING.rglob("*.md"))}
CARDS = {file.name: file.read_text(encoding="utf-8") for file in sorted(FOLDER.iterdir(), key=str) if file.is_file()}
PAGES = {
    f"{path.name} in Chinese": path.read_text(encoding="utf-8")
    for path in sorted(INTERVIEW.glob("first_pages_zh/*.md"))
}
PROSE = {
    path.name: "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    for place in ("notebooks", "solutions")
    for path in sorted((ROOT / place).glob("*.ipynb"))
}
# "16 bytes a parameter" is archaic, and can be misread; "16 bytes per parameter" cannot.
UNIT = "bytes numbers messages FLOPs MFLOPs gradients tokens sequences samples updates kB MB GB ms s seconds GPU GPUs"
EACH = "rank parameter step second token GPU node card tensor bucket message worker day"
PER = re.compile(rf"\b(?:{'|'.join(UNIT.split())}) an? (?:{'|'.join(EACH.split())})\b")


def test_a_chapter_shows_its_letters_and_the_course_all():
    assert "bandwidth" in repr(symbols("02")) and "vocabulary" not in repr(symbols("02"))
    assert repr(symbols()).count("\n") == len(read("symbols")) + 1
    chapters = {chapter for *_, where in read("symbols").values() for chapter in str(where).split()}
    assert chapters <= TITLES.keys()


def test_a_term_has_one_word_in_each_language():
    for language in ("en", "zh"):
        words = [row[language] for row in read("glossary")]
        assert len(words) == len(set(words))
    assert "显存" in repr(glossary())


@pytest.mark.parametrize("name", [*CARDS, *PAGES, *PROSE])
def test_terms_are_said_in_their_one_word(name):
    text = (CARDS | PAGES | PROSE)[name]
    refused = {word: row["zh"] for row in read("glossary") for word in row["not"]}
    assert {word: instead for word, instead in refused.items() if word in text} == {}


@pytest.mark.parametrize("name", [*CARDS, *NOTES, *PROSE])
def test_what_holds_for_each_one_is_said_with_per(name):
    assert PER.findall((CARDS | NOTES | PROSE)[name]) == []
