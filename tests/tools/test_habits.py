"""What `make lint` counts and reads: lines of code, and the form of docstrings."""

import ast
import runpy
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SIZES, DOCSTRINGS = (runpy.run_path(str(TOOLS / f"{name}.py")) for name in ("sizes", "docstrings"))
SOURCE = '''"""Head."""

import os


def first():
    """What it does.

    And more.
    """
    # why
    return [
        os,
    ]
'''


def test_only_code_counts():
    assert SIZES["code_lines"](SOURCE, ast.parse(SOURCE)) == {6, 12, 13, 14}


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("DOC101: `f`: Docstring contains fewer arguments than in function signature.", False),
        ("DOC103: `f`: ... Arguments in the function signature but not in the docstring: [n: int].", False),
        ("DOC103: `f`: ... Arguments in the docstring but not in the function signature: [m: ].", True),
        ("DOC104: `f`: Arguments are the same, but are in a different order.", True),
    ],
)
def test_a_section_may_be_absent_but_not_wrong(line, kept):
    assert (DOCSTRINGS["ABSENT"].search(line) is None) == kept


@pytest.mark.parametrize(
    ("docstring", "count"),
    [("Cuts. ValueError if n is 0.", 1), ("Cuts.\n\n    Raises:\n        ValueError: if n is 0.\n    ", 0)],
)
def test_what_is_raised_has_a_section(tmp_path, docstring, count):
    (tmp_path / "a.py").write_text(f'def cut(n):\n    """{docstring}"""\n')
    assert len(list(DOCSTRINGS["in_prose"](tmp_path / "a.py"))) == count
