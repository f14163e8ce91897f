"""One letter for one thing: whatever stands in a formula is a letter of the course's table, or a word."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_lab.course.terms import read

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "parallel_lab"
GREEK = {
    "alpha beta gamma delta epsilon varepsilon eta theta kappa lambda mu nu xi": "αβγδεεηθκλμνξ",
    "rho sigma tau phi varphi psi omega ell Delta Lambda Omega": "ρστφφψωℓΔΛΩ",
}
GREEK = {name: letter for names, letters in GREEK.items() for name, letter in zip(names.split(), letters, strict=True)}
TEXT = re.compile(r"_?\{?\\(?:text|mathrm|operatorname|textbf)\*?\{[^}]*\}\}?")
LETTER = r"[A-Za-zα-ωΑ-Ωℓ]"
# In plain text a letter stands alone, perhaps with an index: not in a word, a name, a call, a unit or a quotation.
ALONE = re.compile(
    rf"(?<![\w.'\"’/%-])({LETTER}(?:_[A-Za-z0-9]+)?)(?:[0-9*²³]|_?\{{[^}}]*\}})?(?![\w'\"’]|\.\w|-[A-Za-z]|[(\[](?![^)]*[+-]))"
)
# What looks like a letter and is none: sums and constants, the order of a cost, units after a number, names.
NO_LETTER = re.compile(
    r"[ΣπΩ]|\bO\([^)]*\)|[NM]:[NM]|[MGD]/[MGD]/\w+|C\+\+|Ctrl-\w|[\d,.]+\s?(?:[BMTGkKW]|GB|MB)\b"
    r"|\b[VUXZ][- ]shape\w*|\b[A-Z]\.(?:\s?[A-Z]\.)*\s"
)
LISTING = re.compile(r"```.*?```", re.DOTALL)
TABLE = {letter for row in read("symbols") for letter in row.split(", ")}
BASES = {letter.split("_")[0].rstrip("*") for letter in TABLE}


def test_the_table_has_each_letter_once():
    """A letter with an index is a thing of the kind of its letter: T_F is a time."""
    rows = [{letter.split("_")[0] for letter in row.split(", ")} for row in read("symbols")]
    doubled = {letter for row in rows for letter in row if sum(letter in other for other in rows) > 1}
    # Several times, several sizes: the kind is one.
    assert doubled == {"T", "S", "B", "b", "a", "n"}


def of_formula(formula: str) -> Iterator[str]:
    """The letters of a formula in TeX, without what stands in words; a run of letters is their product."""
    formula = TEXT.sub(" ", formula)
    for name, letter in GREEK.items():
        formula = re.sub(rf"\\{name}(?![A-Za-z])", f" {letter} ", formula)
    formula = re.sub(r"\\[A-Za-z]+", " ", formula)
    formula = re.sub(r"\s+_", "_", formula)
    for run in re.findall(rf"{LETTER}+", re.sub(rf"_(?:\{{[^}}]*\}}|{LETTER}|\d)", " ", formula)):
        yield from [run] if run in BASES else run


def formulas(text: str) -> Iterator[str]:
    """What stands between dollars."""
    for display, inline in re.findall(
        r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.S
    ):
        yield display or inline


def of_code(text: str) -> set[str]:
    """The letters in the short formulas of a card or a hint, which stand as code."""
    spans = re.findall(r"`([^`\n]+)`", LISTING.sub("", text))
    return {letter.split("_")[0] for span in spans for letter in ALONE.findall(NO_LETTER.sub(" ", span))}


def prose(notebook: Path) -> str:
    """The text of a chapter."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


CHAPTERS = {path.name[:2]: prose(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
CARDS = [path for path in PACKAGE.glob("course/questions/*.md") if path.name != "_TEMPLATE.md"]
PLACES = sorted([*CARDS, *PACKAGE.glob("grading/**/*.md"), *PACKAGE.glob("interview/first_pages_zh/*.md")])
TEXTS = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PLACES}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_formula_of_a_chapter_uses_letters_of_the_table_that_the_chapter_shows(chapter):
    used = {letter for formula in formulas(CHAPTERS[chapter]) for letter in of_formula(formula)}
    shown = {
        letter.split("_")[0].rstrip("*")
        for row, (*_, where) in read("symbols").items()
        for letter in row.split(", ")
        if chapter in str(where) or chapter in ("00", "24")
    }
    assert used - shown == set()


@pytest.mark.parametrize("name", TEXTS)
def test_a_formula_of_a_card_uses_letters_of_the_table(name):
    formula = {letter for formula in formulas(TEXTS[name]) for letter in of_formula(formula)}
    assert (of_code(TEXTS[name]) | formula) - BASES == set()


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Docstrings without what stands as code, each after the names of its parameters."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            arguments = node.args if isinstance(node, ast.FunctionDef) else None
            names = [a.arg for a in [*arguments.args, *arguments.kwonlyargs]] if arguments else []
            yield " ".join(names), re.sub(r"`[^`\n]*`", " ", text)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_docstring_uses_letters_of_the_table(path):
    used = {
        letter
        for names, text in docstrings(path)
        for letter in ALONE.findall(NO_LETTER.sub(" ", text))
        if letter not in ("a", "A", "I", *names.split())
    }
    assert {letter for letter in used if letter.split("_")[0] not in BASES} == set()
