"""`evidence("E5")` runs the cell that measures an answer, with the cells that it needs and no others, where one stands.

The cells run in this kernel under names of their own, so that the learner's stay as they are. What the measuring cell
shows is shown; what the others show is not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from parallel_lab.course import page, workspace
from parallel_lab.course.anchors import anchor, heading_above
from parallel_lab.course.questions import ask
from parallel_lab.course.under_way import Line
from parallel_lab.interview.captured import CellFailed, Shown, new_space, run_cell
from parallel_lab.interview.needed import Cell, code_of, needed
from parallel_lab.interview.words import lang, language_of, say
from parallel_lab.trace.units import format_seconds

Told = Callable[[str], None]


@dataclass(frozen=True, repr=False)
class Evidence(page.Shown):
    """What the cell that measures an answer showed just now.

    Attributes:
        card: Whose answer it is: `E5`.
        place: `notebook#cell`, as the card names it.
        cells: What was run, the measuring cell last.
        shown: What that one showed.
        took_s: Seconds that all of them took.
        failed: The error that ended it; empty where none did.
        language: `en` or `zh`.
    """

    card: str
    place: str
    cells: Sequence[Cell]
    shown: Sequence[page.Part]
    took_s: float
    failed: str = ""
    language: str = "en"

    def as_page(self) -> page.Page:
        """The link, the code of the measuring cell, what it showed, which cells ran."""
        own, zh = self.language, lang(self.language)
        head = page.paragraph(say("evidence.head", own, card=self.card), "head", zh)
        code = page.folded(say("evidence.code", own, cell=self.cells[-1].id), page.code(self.cells[-1].source), zh)
        code = page.Part(code.html, None)
        names, took = ", ".join(cell.id for cell in self.cells), format_seconds(self.took_s)
        foot = say("evidence.ran", own, count=len(self.cells), names=names, took=took)
        parts = [head, code, *self.shown, page.paragraph(foot, "small", zh), link(self.place, own)]
        if self.failed:
            parts.insert(1, page.paragraph(say("evidence.failed", own, why=self.failed), "wrong", zh))
        return page.Page(say("evidence.head", own, card=self.card), parts, "bad" if self.failed else "")


def link(place: str, language: str = "en") -> page.Part:
    """A small line with a link to where the cell `place` stands in its chapter."""
    notebook, _, tag = place.partition("#")
    file, heading = heading_above(notebook, tag) or (f"{notebook}.ipynb", tag)
    text = say("evidence.stands", language, where="\0", file=file)
    where = f'<a href="{escape(f"{file}#{anchor(heading)}")}">{escape(heading)}</a>'
    kind = f' lang="{lang(language)}"' if lang(language) else ""
    html = f'<p class="plab-small"{kind}>{escape(text).replace(chr(0), where)}</p>'
    return page.Part(html, text.replace("\0", heading))


def place_of(name: str) -> tuple[str, str]:
    """The card and the place of the evidence of `name`: a card `E5`, or one of its atoms, `E5/number`.

    Raises:
        UnknownName: there is no such card; this KeyError names the nearest ids.
        ValueError: the card names no cell.
    """
    card = ask(name.partition("/")[0])
    if "#" not in card.evidence:
        raise ValueError(f"card {card.question.id} names no cell that measures its answer")
    return card.question.id, card.evidence


def evidence(name: str, language: str | None = None, told: Told | None = None) -> Evidence:
    """Runs the cell that measures the answer of card `name`, and shows what it shows.

    Args:
        name: `"E5"`, or an atom of it, `"E5/number"`.
        language: `en` or `zh`; that of the environment by default.
        told: is called with a line about each cell before it runs; by default the line stands under the cell, or on
            the terminal.

    Raises:
        UnknownName: there is no such card; this KeyError names the nearest ids.
        ValueError: there is no such language.
        FileNotFoundError: the course's folder has not the chapter.
    """
    own = language_of(language)
    card, place = place_of(name)
    notebook, _, tag = place.partition("#")
    file = workspace.notebook(notebook)
    cells = needed(code_of(file), tag)
    began_s = time.perf_counter()
    with Line() as line:
        shown, failed = _run(cells, file, own, told or line)
    return Evidence(card, place, cells, shown, time.perf_counter() - began_s, failed, own)


def _run(cells: Sequence[Cell], file: Path, language: str, told: Told) -> tuple[Shown, str]:
    """What the last cell shows, and the error that ended it."""
    space, shown = new_space(), []
    for n, cell in enumerate(cells, 1):
        told(say("evidence.running", language, n=n, count=len(cells), cell=cell.id, chapter=file.stem))
        try:
            shown = run_cell(cell, space, file.name)
        except CellFailed as error:
            return [], str(error)
    return shown, ""
