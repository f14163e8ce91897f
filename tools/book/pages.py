"""The pages of the book before MyST reads them: where each stands, what it is called, and its Markdown or its cells."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOOK = "https://book.invalid/"  # stands before links between pages while MyST reads them; no page of the book keeps it
OF_PAGE = "--"  # stands between a page and the id of its cell while MyST reads them
_CODE = re.compile(r"(```.*?```|`[^`]*`|^ {4}.*?$)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One page of the book.

    Attributes:
        path: its place in the book, without an ending: `chapters/09_pipeline_parallel`.
        kind: start, first, chapter, card, exercise, reference, source, more or search.
        title: its title in English.
        zh: its title in Chinese, or nothing where it has none.
        origin: the file of the repository that it is made from, or nothing; links are seen from there.
        text: its Markdown, without the title.
        cells: its cells, where it is made from a notebook.
        chapter: the two digits of the chapter that it belongs to, or nothing.
    """

    path: str
    kind: str
    title: str
    zh: str = ""
    origin: str = ""
    text: str = ""
    cells: tuple[Mapping[str, Any], ...] = ()
    chapter: str = ""

    @property
    def address(self) -> str:
        """The file of the page, seen from the book's folder."""
        return f"{self.path}.html"


def escaped(text: str) -> str:
    """Markdown in which MyST shall see no formula and no citation: a dollar is a dollar, an at sign an at sign."""
    pieces = _CODE.split(text)
    return "".join(piece if place % 2 else re.sub(r"([$@])", r"\\\1", piece) for place, piece in enumerate(pieces))
