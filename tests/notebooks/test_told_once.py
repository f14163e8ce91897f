"""Each result is told once: no sentence of the course stands twice, and no measured figure twice in a chapter."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONG = 9  # words; shorter ones, such as "Run the cell.", may come again
DIGITS = 3  # of a figure; those with fewer meet by chance
LISTING = re.compile(r"```.*?```", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n\n|\n[-|]")
# A gap or a section names the exercise that follows, with its file; lists of sources name the same papers.
NAMES = re.compile(r"It leads to the exercise|\.ipynb")
SOURCES = re.compile(r"(?:\*\*|## )(?:Sources|Papers and books).*", re.DOTALL)
FIGURE = re.compile(r"(?<![\w.,])\d[\d,]*\.\d+ ?(?:%|ms|µs|s|GB/s|GB|MB|kB|times|points)(?!\w)")


def texts(notebook: Path) -> dict[str, str]:
    """The prose of a chapter by the id of its cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    prose = {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"}
    return {name: SOURCES.sub("", LISTING.sub("", text)) for name, text in prose.items()}


CHAPTERS = {path.name[:2]: texts(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def test_no_sentence_of_the_course_stands_twice():
    places = defaultdict(list)
    for chapter, cells in CHAPTERS.items():
        for name, text in cells.items():
            for sentence in SENTENCE.split(text):
                words = re.findall(r"\w+", sentence.lower())
                if len(words) >= LONG and not NAMES.search(sentence):
                    places[" ".join(words)].append(f"{chapter}#{name}")
    assert {sentence: where for sentence, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_figure_is_told_once_beside_the_first_page(chapter):
    places = defaultdict(set)
    for name, text in list(CHAPTERS[chapter].items())[2:]:  # the title and the first page, which gathers results
        for figure in FIGURE.findall(text):
            if len(re.sub(r"\D", "", figure).strip("0")) >= DIGITS:
                places[figure].add(name)
    assert {figure: where for figure, where in places.items() if len(where) > 1} == {}
