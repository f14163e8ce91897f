"""Pages from notebooks and from Markdown files of the repository: chapters, their first pages, exercises, the rest."""

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from parallel_lab.course.tasks import cells as cells_of
from parallel_lab.interview.stored import FIRST_PAGE, first_page
from parallel_lab.interview.words import say
from tools.book.cards import fence
from tools.book.pages import ROOT, Page

Cells = tuple[Mapping[str, Any], ...]
# Markdown files of the repository that are pages; the first is where the book opens.
FILES = {
    "README.md": ("index", "start", "Parallel Lab", "Parallel Lab"),
    "CLAIMS.md": ("claims", "more", "Twenty claims, judged", "二十条说法的评判"),
    "benchmarks/README.md": ("benchmarks", "more", "What was measured", "测量结果"),
    "benchmarks/gpu.md": ("gpu", "more", "What ran on a GPU", "在 GPU 上运行的结果"),
    "CONTRIBUTING.md": ("contributing", "more", "Contributing", "参与贡献"),
    "CHANGELOG.md": ("changelog", "more", "Changes", "更新记录"),
}
HIDDEN = "hide-output"


def notebook_places() -> dict[str, str]:
    """The page of each notebook and Markdown file, by the file's path in the repository."""
    places = {name: page for name, (page, *_) in FILES.items()}
    for folder, below in (("notebooks", "chapters"), ("exercises", "exercises")):
        for file in sorted((ROOT / folder).glob("[0-9]*.ipynb")):
            places[f"{folder}/{file.name}"] = f"{below}/{file.stem}"
            # No solution is in the book: its text is the exercise's.
            places |= {f"solutions/{file.name}": f"{below}/{file.stem}"} if folder == "exercises" else {}
    return places


def chapter_pages() -> Iterator[Page]:
    """Chapters, and the exercises without their solutions."""
    for path, place in notebook_places().items():
        folder, _, name = path.partition("/")
        if folder in ("notebooks", "exercises"):
            cells = read(ROOT / path)
            kind = "chapter" if folder == "notebooks" else "exercise"
            chinese = f"{name[:2]} · {say(f'chapter.{name[:2]}', 'zh')}" if kind == "chapter" else ""
            yield Page(place, kind, title(cells), chinese, origin=path, cells=cells, chapter=name[:2])


def first_pages(chapters: list[Page]) -> Iterator[Page]:
    """What one reads of each chapter the night before an interview, and the list of these pages."""
    lines = []
    for chapter in chapters:
        if cells := in_both(first_of(chapter.cells), chapter.chapter):
            path = f"first/{Path(chapter.path).name}"
            lines.append(f"- [{chapter.title}](book:{path}.html)")
            yield Page(path, "first", chapter.title, chapter.zh, chapter.origin, cells=cells, chapter=chapter.chapter)
    words = (
        "What one reads of each chapter the night before an interview: its decision table, formulas, numbers, picture."
    )
    yield Page("first/index", "first", "First pages", "每章第一页", text="\n".join([words, "", *lines]))


def in_both(cells: Cells, chapter: str) -> Cells:
    """The cells of a first page with the Chinese text behind the English one, before and after each picture."""
    if not cells:
        return ()
    intro, *others = (part for part in first_page(chapter, "zh")[1] if isinstance(part, str) and part)
    chinese = iter([intro[intro.index("## ") :], *others])
    found = []
    for worded, group in groupby(cells, key=lambda cell: cell["cell_type"] == "markdown"):
        if not worded:
            found += group
            continue
        several = [{**cell, "source": fence("en", "".join(cell["source"]))} for cell in group]
        several[-1]["source"] += f"\n\n{fence('zh', next(chinese))}"
        found += several
    return tuple(found)


def exercise_list(exercises: list[Page]) -> Page:
    """All exercises, by the titles of their notebooks."""
    lines = [f"- [{one.title}](book:{one.path}.html)" for one in exercises]
    words = "Tasks and what is graded, without solutions. `make lab` opens them where they can be solved and checked."
    return Page("exercises/index", "exercise", "Exercises", "练习", text="\n".join([words, "", *lines]))


def first_of(cells: Cells) -> Cells:
    """The cells of a chapter's first page, the code of its pictures left out; nothing where it has no such page."""
    inside, found = [], False
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (head := re.search(r"^## (.+)", text, re.MULTILINE)):
            if found:
                break
            found = head[1].startswith(FIRST_PAGE)
        if found and cell["cell_type"] == "markdown":
            inside.append(cell)
        elif found and any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            inside.append({**cell, "metadata": {**cell["metadata"], "tags": ["remove-input"]}})
    return tuple(inside)


def file_pages() -> Iterator[Page]:
    """The Markdown files."""
    for name, (path, kind, english, chinese) in FILES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        text = re.sub(r"^<!--.*?-->\n|\A# .+\n", "", text, flags=re.MULTILINE)
        text = f"{start()}\n{text}" if kind == "start" else text
        yield Page(path, kind, english, chinese, origin=name, text=text)


def start() -> str:
    """What the book says before the README: what it is, in both languages, and the chapters in Chinese."""
    places = ((place, name) for name, place in notebook_places().items() if name.startswith("notebooks/"))
    rows = (f"| {name[10:12]} | [{say(f'chapter.{name[10:12]}', 'zh')}](book:{place}.html) |" for place, name in places)
    return (ROOT / "book" / "start.md").read_text(encoding="utf-8").replace("{chapters}", "\n".join(rows))


def read(file: Path) -> Cells:
    """The cells of a notebook; outputs that it folds are marked in MyST's way."""
    cells = cells_of(file)
    for cell in cells:
        if cell["metadata"].get("jupyter", {}).get("outputs_hidden"):
            cell["metadata"].setdefault("tags", []).append(HIDDEN)
    return tuple(cells)


def title(cells: Cells) -> str:
    """The heading of a notebook."""
    text = "".join(cells[0]["source"])
    return text.partition("\n")[0].removeprefix("# ").replace("`", "").strip()
