"""Which cells of a notebook a cell needs: those that bind, or change, the names that it looks up, and theirs.

A cell is whole or not there: what stands beside a definition, as a seed, may be what makes the numbers come out.
"""

import ast
import builtins
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from parallel_lab.course import anchors
from parallel_lab.course.tasks import without_magics

KNOWN = frozenset(dir(builtins)) | {"display", "get_ipython", "__name__"}
_CHANGING = frozenset({"append", "extend", "insert", "add", "update", "setdefault", "pop", "clear", "sort", "remove"})
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_BODIES = ("body", "handlers", "orelse", "finalbody")
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


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


def file_of(notebook: str) -> Path:
    """The file of a chapter, by its name or its two digits.

    Raises:
        ValueError: the course's folder has none.
    """
    found = sorted(anchors.NOTEBOOKS.glob(f"{notebook[:2]}_*.ipynb"))
    if not found:
        raise ValueError(f"there is no chapter {notebook} in {anchors.NOTEBOOKS}")
    return found[0]


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
                effects[one.name] = changed(ast.Module(one.body, [])) - _own(one)
    return [
        _Use(
            bound(tree),
            changed(tree).union(*(effects.get(name, set()) for name in _called(tree))),
            looked_up(tree),
            _free(tree) - bound(tree) - KNOWN,
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


def _called(tree: ast.Module) -> set[str]:
    return {one.func.id for one in _outside(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)}


def bound(tree: ast.AST) -> set[str]:
    """The names that the statements of a cell bind, where a function's own are not seen."""
    found: set[str] = set()
    for node in _outside(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(one.asname or one.name).split(".")[0] for one in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def changed(tree: ast.AST) -> set[str]:
    """The names of what a cell changes and does not bind: `x[0] = 1`, `x.a = 1`, `x += 1`, `x.append(1)`."""
    found: set[str] = set()
    for node in _outside(tree):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found |= _base(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
            found |= _base(node.func)
    return found


def _base(node: ast.AST) -> set[str]:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _outside(tree: ast.AST) -> Iterator[ast.AST]:
    """`tree` and the nodes below it that run with it: not those inside of functions, classes and comprehensions."""
    yield tree
    if not isinstance(tree, (*_SCOPES, *_COMPREHENSIONS)):
        for node in ast.iter_child_nodes(tree):
            yield from _outside(node)


def looked_up(tree: ast.Module) -> set[str]:
    """The names that a cell takes from before while it runs; those inside its functions are looked up later."""
    found: set[str] = set()
    _follow(tree.body, found, set(KNOWN))
    return found


def _follow(statements: Sequence[ast.AST], found: set[str], there: set[str]) -> None:
    """Adds to `found` what `statements` look up and is not `there` yet, and to `there` what they bind, in order."""
    for one in statements:
        bodies = [body for name in _BODIES if (body := getattr(one, name, None))]
        simple = isinstance(one, _SCOPES) or not bodies
        for head in [one] if simple else _heads(one):
            found |= _free(head, running=True) - there
            there |= bound(head)
        for body in [] if simple else bodies:
            _follow(body, found, there)


def _heads(statement: ast.AST) -> list[ast.AST]:
    """What a loop, a branch or a block is over, in the order in which it is looked at."""
    if isinstance(statement, (ast.For, ast.AsyncFor)):
        return [statement.iter, statement.target]
    if isinstance(statement, ast.ExceptHandler):
        return [ast.Name(statement.name or "_", ast.Store()), *filter(None, [statement.type])]
    fields = [value for name, value in ast.iter_fields(statement) if name not in _BODIES]
    return [
        one for value in fields for one in (value if isinstance(value, list) else [value]) if isinstance(one, ast.AST)
    ]


def _free(node: ast.AST, running: bool = False) -> set[str]:
    """The names that `node` looks up and that are not those of a function or a comprehension in it.

    With `running`, only those that it looks up before a function in it is called.
    """
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if running and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        outside = [*getattr(node, "decorator_list", ()), *node.args.defaults, *filter(None, node.args.kw_defaults)]
        return set().union(*(_free(one, running) for one in outside))
    inside = set().union(*(_free(one, running) for one in ast.iter_child_nodes(node)))
    added = {node.target.id} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else set()
    return (inside | added) - _own(node)


def _own(node: ast.AST) -> set[str]:
    """The names that belong to a function, a class or a comprehension itself."""
    if isinstance(node, _COMPREHENSIONS):
        return {one.id for g in node.generators for one in ast.walk(g.target) if isinstance(one, ast.Name)}
    if isinstance(node, ast.ClassDef):
        return bound(ast.Module(node.body, []))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        a = node.args
        named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        body = [] if isinstance(node, ast.Lambda) else node.body
        return {one.arg for one in named} | bound(ast.Module(body, []))
    return set()
