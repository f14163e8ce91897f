"""Every question of a written chapter has its card, and each card's evidence is a cell that ran."""

import json
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
