"""Two versions of a notebook beside each other, by the ids of their cells: how many differ, which, and in which lines.

What was run does not count: only the sources of cells are compared, and their kinds.
"""

import difflib
import json
import re
from dataclasses import dataclass

NEW, CHANGED, GONE = "new", "changed", "gone"
MOST = 5  # cells that are named
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A cell as it is compared."""

    kind: str  # `code` or `markdown`
    source: str
    heading: str  # the last one above it, or its own; empty where there is none


@dataclass(frozen=True)
class Change:
    """A cell in which two versions differ."""

    id: str
    how: str  # `new`, `changed` or `gone`
    before: Cell | None  # None for a new one
    after: Cell | None  # None for one that is gone

    @property
    def title(self) -> str:
        """How the cell differs, and where it stands."""
        cell = self.after or self.before
        assert cell
        return f"{self.how}: {cell.kind} cell {self.id}" + (f', under "{cell.heading}"' if cell.heading else "")

    def lines(self) -> list[str]:
        """The lines that differ with some around them, as `diff -u` has them."""
        before, after = (one.source.splitlines() if one else [] for one in (self.before, self.after))
        return list(difflib.unified_diff(before, after, lineterm=""))[2:]  # without the names of files


def cells_of(text: str) -> dict[str, Cell]:
    """The cells of a notebook by their ids, or by their places in an old format that has none.

    Raises:
        ValueError: `text` is no notebook.
    """
    found, heading = {}, ""
    try:
        for place, cell in enumerate(json.loads(text)["cells"], 1):
            kind, source = cell["cell_type"], "".join(cell["source"])
            headings = _HEADING.findall(source) if kind == "markdown" else []
            found[cell.get("id", f"#{place}")] = Cell(kind, source, headings[0] if headings else heading)
            heading = headings[-1] if headings else heading
    except (KeyError, TypeError, AttributeError):
        raise ValueError("no notebook") from None
    return found


def changes(before: str, after: str) -> list[Change]:
    """The cells in which two versions of a notebook differ, in the order of the later one; those that are gone last.

    Raises:
        ValueError: one of them is no notebook.
    """
    old, new = cells_of(before), cells_of(after)
    found = []
    for name, cell in new.items():
        if name not in old:
            found.append(Change(name, NEW, None, cell))
        elif (cell.kind, cell.source) != (old[name].kind, old[name].source):
            found.append(Change(name, CHANGED, old[name], cell))
    return found + [Change(name, GONE, cell, None) for name, cell in old.items() if name not in new]


def counted(found: list[Change]) -> str:
    """`1 cell new, 2 changed, 0 gone`."""
    new, changed, gone = (sum(one.how == how for one in found) for how in (NEW, CHANGED, GONE))
    return f"{new} cell{'s' * (new != 1)} new, {changed} changed, {gone} gone"


def named(found: list[Change]) -> list[str]:
    """A line for each cell, and one for those that are too many."""
    more = len(found) - MOST
    return [one.title for one in found[:MOST]] + ([f"and {more} more"] if more > 0 else [])
