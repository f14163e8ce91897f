"""Every question of a written chapter has its card, and each card's evidence is a cell that ran."""

import ast
import json
import re
from pathlib import Path

import pytest

from parallel_lab.course.questions import FOLDER, Card, ask, index, parse

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WRITTEN = {path.stem[:2]: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![A-Za-z0-9_]|\.\d)")
YEAR = re.compile(r"(19|20)\d\d")
UNITS = (1, 1e3, 1e6, 1e9, 1e12, 1e-3)  # 2,410 bytes are 2.41 kB
QUESTIONS = [question for question in index().values() if question.chapter in WRITTEN]


def code_cells(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def everything(cell: dict) -> str:
    """What a cell says and prints."""
    printed = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]]
    return "\n".join("".join(part) for part in [cell["source"], *printed])


def numbers(text: str) -> list[str]:
    """All numbers in `text`, as they are written."""
    return [number.rstrip(",") for number in NUMBER.findall(text)]


def telling(number: str) -> bool:
    """A number with a decimal point or three digits must say where it comes from; a year need not."""
    return not number.isdigit() or (len(number) >= 3 and not YEAR.fullmatch(number))


def shows(text: str, number: str) -> bool:
    """Whether a number in `text` is `number`, rounded to the digits that it has and perhaps in another unit."""
    digits, _, exponent = number.replace(",", "").partition("e")
    zeros = len(digits) - len(digits.rstrip("0")) if digits.isdigit() else 0
    half = 0.500001 * 10.0 ** (int(exponent or 0) + zeros - len(digits.partition(".")[2]))
    there = [float(one.replace(",", "")) for one in numbers(text.replace("_", ""))]
    there += [100 * one for one in there if one < 1]  # per cent
    return any(abs(one / unit - float(number.replace(",", ""))) <= half for one in there for unit in UNITS)


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


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_every_number_says_where_it_comes_from_and_stands_there(question):
    """`numbers` of the front matter: the id of a cell, or a few words, and the card's numbers that come from there."""
    text = FOLDER.joinpath(f"{question.id}.md").read_text(encoding="utf-8")
    front, sections = parse(text, question.id)
    written = {number for section in sections.values() for number in numbers(section) if telling(number)}
    sources = {number: place for place, row in front.get("numbers", {}).items() for number in str(row).split()}
    assert not written - sources.keys(), "numbers in the card that do not say where they come from"
    assert not sources.keys() - written, "numbers in the front matter that the card no longer has"
    cells = {cell["id"]: everything(cell) for cell in code_cells(WRITTEN[question.chapter])}
    for number, place in sources.items():
        if " " not in place:  # words say how a number is computed that no cell prints
            assert shows(cells[place], number), f"{number}: not in the cell {place}"


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


@pytest.mark.parametrize("question", [q for q in QUESTIONS if q.kind == "code"], ids=lambda question: question.id)
def test_a_coding_problem_is_answered_with_code(question):
    blocks = re.findall(r"^```python\n(.*?)^```$", card_of(question).sections["Two minutes"], re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        ast.parse(block)
