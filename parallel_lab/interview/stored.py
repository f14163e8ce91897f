"""What the executed chapters show: the output of a cell, the pictures of a section, the first page. Nothing is run.

The Chinese text of a first page stands in `first_pages_zh/NN.md`; its pictures are the chapter's.
"""

import base64
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from parallel_lab.course import workspace
from parallel_lab.course.anchors import headings
from parallel_lab.course.tasks import cells
from parallel_lab.interview.words import say

FIRST_PAGE = "On one page"
_PLACE = re.compile(r"^!\[(.*)\]\(\)$", re.MULTILINE)  # of a picture in a Chinese page, with what it shows
_FOR_CHINESE = re.compile(r"^中文：.*", re.MULTILINE)  # how a reader of Chinese gets the page
Cell = dict[str, Any]


class Picture(NamedTuple):
    """A picture as a chapter stores it."""

    png: bytes
    alt: str
    width: int  # in pixels of a page; the PNG is denser


class Proof(NamedTuple):
    """What stands at the cell that proves an answer."""

    notebook: str  # the name of the file
    heading: str  # the nearest one above the cell
    text: str  # what the cell printed; empty where it printed nothing
    picture: Picture | None  # of the cell, else the nearest one of its section


def chapters() -> list[str]:
    """The two digits of all chapters whose notebooks are there."""
    return sorted(file.name[:2] for file in (workspace.root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@cache
def _cells(file: Path) -> list[Cell]:
    return cells(file)


@cache
def proof(evidence: str) -> Proof | None:
    """What stands at `evidence` (`notebook#cell`); None where the course here has no such cell."""
    notebook, _, name = evidence.partition("#")
    try:
        file = workspace.notebook(notebook)
    except FileNotFoundError:
        return None
    stored = _cells(file)
    place = next((n for n, one in enumerate(stored) if name in (one["id"], *one["metadata"].get("tags", ()))), None)
    if place is None:
        return None
    above = (headings(_source(one)) for one in stored[place::-1] if one["cell_type"] == "markdown")
    nearest = next((titles[-1] for titles in above if titles), "")
    return Proof(file.name, nearest, printed(stored[place]), _nearest_picture(stored, place))


def _nearest_picture(stored: list[Cell], place: int) -> Picture | None:
    """The picture of the cell, else the next one of its section, else the last one before it in the section."""
    start = max((n for n in range(place + 1) if _begins_section(stored[n])), default=0)
    end = next((n for n in range(place + 1, len(stored)) if _begins_section(stored[n])), len(stored))
    nearest = [*range(place, end), *range(place - 1, start - 1, -1)]
    return next((picture for n in nearest for picture in pictures(stored[n])), None)


def _begins_section(cell: Cell) -> bool:
    return cell["cell_type"] == "markdown" and bool(re.search(r"^## ", _source(cell), re.MULTILINE))


def first_page(chapter: str, language: str = "en") -> tuple[str, list[str | Picture]]:
    """The title of a chapter, and its first page: Markdown and pictures, from the title to the next section.

    Raises:
        ValueError: the chapter has no first page.
    """
    title, page = _english_page(chapter)
    if language == "en":
        return title, page
    shown = [one for one in page if isinstance(one, Picture)]
    return f"{chapter} · {say(f'chapter.{chapter}', language)}", list(_chinese_page(chapter, shown))


def _chinese_page(chapter: str, shown: list[Picture]) -> Iterator[str | Picture]:
    """Texts, and between them the chapter's pictures; one that the learner's copy does not have is left out."""
    text = files("parallel_lab.interview").joinpath("first_pages_zh", f"{chapter}.md").read_text(encoding="utf-8")
    first, *rest = _PLACE.split(text)  # and for each picture: what it shows, the text after it
    yield first.strip()
    for place, (alt, after) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
        yield from (picture._replace(alt=alt) for picture in shown[place : place + 1])
        yield after.strip()


def _english_page(chapter: str) -> tuple[str, list[str | Picture]]:
    title, *rest = _cells(workspace.notebook(chapter))
    name, _, words = _source(title).partition("\n")
    page: list[str | Picture] = [_FOR_CHINESE.sub("", words).strip()]
    began = False
    for cell in rest:
        if _begins_section(cell) and began:
            break
        if cell["cell_type"] == "markdown":
            began = began or FIRST_PAGE in headings(_source(cell))
            page.append(_source(cell))
        else:
            page += pictures(cell)
    if not began:
        raise ValueError(f"chapter {chapter} has no section “{FIRST_PAGE}”")
    return name.lstrip("# "), page


def pictures(cell: Cell) -> Iterator[Picture]:
    """The pictures that a cell stored."""
    for output in cell.get("outputs", ()):
        if png := output.get("data", {}).get("image/png"):
            about = output.get("metadata", {})
            alt = about.get("alt") or _joined(output["data"].get("text/plain", ""))
            width = about.get("image/png", {}).get("width", 640)
            yield Picture(base64.b64decode(_joined(png)), alt, width)


def printed(cell: Cell) -> str:
    """What a cell printed, without what it warned of."""
    streams = [one for one in cell.get("outputs", ()) if one["output_type"] == "stream" and one["name"] == "stdout"]
    return "".join(_joined(one["text"]) for one in streams).strip("\n")


def _source(cell: Cell) -> str:
    return _joined(cell["source"])


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
