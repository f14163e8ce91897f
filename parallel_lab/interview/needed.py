"""Which cells of a notebook a cell needs: those that bind, or change, the names that it looks up, and theirs.

A cell is whole or not there: what stands beside a definition, as a seed, may be what makes the numbers come out.
"""

import ast
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from parallel_lab.course.tasks import without_magics
from parallel_lab.interview.names import KNOWN, bound, called, changed, free, looked_up, own


class Cell(NamedTuple):
    """A cell of code."""

    id: str
    tags: tuple[str, ...]
    source: str
    shows: bool = True  # whether it left an output in the notebook

    @property
    def tree(self) -> ast.Module:
        """What the cell says; lines that only IPython understands are left out."""
        return ast.parse("\n".join(without_magics(self.source)))


@cache
def code_of(file: Path) -> tuple[Cell, ...]:
    """The cells of code of a notebook."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return tuple(
        Cell(one["id"], tuple(one["metadata"].get("tags", ())), "".join(one["source"]), bool(one["outputs"]))
        for one in cells
        if one["cell_type"] == "code"
    )


def needed(cells: Sequence[Cell], name: str) -> list[Cell]:
    """The cell with the tag or id `name`, and before it those of `cells` that it needs, in their order.

    Where that cell only defines what a later one runs, it is the later one, which shows something.

    Raises:
        ValueError: no cell has this tag or id.
    """
    tagged = next((n for n, cell in enumerate(cells) if name in (cell.id, *cell.tags)), None)
    if tagged is None:
        raise ValueError(f"no cell of code has the tag {name}")
    uses = _uses(tuple(cells))
    made = uses[tagged].bound
    showing = (n for n in range(tagged, len(cells)) if cells[n].shows and (n == tagged or made & uses[n].all))
    last = next(showing, tagged)
    found, waiting = {last}, [last]
    while waiting:
        place = waiting.pop()
        now, later = uses[place].now, uses[place].later
        new = {n for each in now for n in _makers(uses[:place], each)}
        new |= {n for each in later for n in _makers(uses[:place], each) or _makers(uses[:last], each)}
        waiting += new - found
        found |= new
    return [cells[place] for place in sorted(found)]


def missing(cells: Sequence[Cell]) -> set[str]:
    """The names that `cells`, run one after the other, look up and that none of them has bound by then."""
    absent: set[str] = set()
    there, uses = set(KNOWN), _uses(tuple(cells))
    for one in uses:
        absent |= one.now - there
        there |= one.bound
    return absent | {name for one in uses for name in one.later} - there


class _Use(NamedTuple):
    """What a cell does with names: binds, changes, looks up while it runs, looks up when its functions are called."""

    bound: set[str]
    changed: set[str]
    now: set[str]
    later: set[str]

    @property
    def all(self) -> set[str]:
        """All that it looks up."""
        return self.now | self.later


@cache
def _uses(cells: tuple[Cell, ...]) -> list[_Use]:
    trees = [cell.tree for cell in cells]
    effects = {}  # what functions of the cells change outside of themselves
    for tree in trees:
        for one in tree.body:
            if isinstance(one, ast.FunctionDef):
                effects[one.name] = changed(ast.Module(one.body, [])) - own(one)
    return [
        _Use(
            bound(tree),
            changed(tree).union(*(effects.get(name, set()) for name in called(tree))),
            looked_up(tree),
            free(tree) - bound(tree) - KNOWN,
        )
        for tree in trees
    ]


def _makers(before: Sequence[_Use], name: str) -> list[int]:
    """Of the cells `before`, the last one that binds `name`, and those after it that change what it stands for."""
    found = []
    for place in reversed(range(len(before))):
        if name in before[place].changed | before[place].bound:
            found.append(place)
        if name in before[place].bound:
            return found
    return []
