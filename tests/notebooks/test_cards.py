"""Every question of a written chapter has its card, and each card's evidence is a cell that ran."""

import json
import re
from pathlib import Path

import pytest

from parallel_lab.course.questions import FOLDER, Card, ask, index

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WRITTEN = {path.stem[:2]: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
QUESTIONS = [question for question in index().values() if question.chapter in WRITTEN]


def code_cells(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def card_of(question) -> Card:
    return ask(question.id)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_a_written_chapter_has_every_card(question):
    assert card_of(question).status == "ready"
    shown = ["".join(cell["source"]) for cell in code_cells(WRITTEN[question.chapter])]
    assert any(f'ask("{question.id}")' in source for source in shown), "the chapter shows the card"


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_the_evidence_is_a_cell_that_ran(question):
    name, tag = card_of(question).evidence.split("#")
    tagged = [c for c in code_cells(WRITTEN[name[:2]]) if tag in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, f"{question.id}: {name} has {len(tagged)} cells tagged {tag}"
    assert tagged[0]["outputs"], f"{question.id}: the cell {tag} shows nothing"


def test_no_card_without_its_chapter():
    cards = {file.name.removesuffix(".md") for file in FOLDER.iterdir() if file.name.endswith(".md")}
    assert cards - {"_TEMPLATE"} <= {question.id for question in QUESTIONS}


def misspelt(text: str) -> list[str]:
    """The ids of cards in `text`, asked for or linked to, that the index does not have."""
    named = re.findall(r"""ask\(\\?["']([^"'\\]+)|questions/(\w+)\.md""", text)
    return [name for pair in named for name in pair if name and name not in {*index(), "_TEMPLATE"}]


def test_a_wrong_id_is_found():
    assert misspelt('ask("C7"), ask(\'E99\'), ask(\\"e5\\"), [card](questions/B99.md)') == ["E99", "e5", "B99"]


def test_every_card_that_is_named_is_in_the_index():
    root = NOTEBOOKS.parent
    texts = [path for place in ("notebooks", "solutions") for path in (root / place).glob("*.ipynb")]
    texts += [*root.glob("*.md"), *(root / "parallel_lab").rglob("*.md")]
    assert {path.name: found for path in texts if (found := misspelt(path.read_text(encoding="utf-8")))} == {}
