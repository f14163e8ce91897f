"""The code is part of the course: `show(DDP, "send")` and `show("zero3.Zero3.unshard")` print the lines that do it."""

import ast
import inspect
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from parallel_lab.course import page, workspace
from parallel_lab.course.typed import UnknownName, named

PACKAGE = Path(__file__).parents[1]
# dotted name below the package -> file
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.parent.name != "exercises"  # graders, not techniques
}
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True, repr=False)
class Listing(page.Shown):
    """Lines of the course's own code."""

    names: str  # what is shown, `zero3.Zero3.unshard`
    file: Path  # where it stands
    code: str  # its lines

    def as_page(self) -> page.Page:
        """The lines, under a link to their file."""
        place = self.file.relative_to(PACKAGE.parent).as_posix()
        link = f'<a href="{escape(os.path.relpath(workspace.shown(self.file)))}">{escape(place)}</a>'
        head = page.Part(f"<p>{escape(self.names)} · {link}</p>", f"# {self.names} · {place}\n")
        return page.Page(f"Code of {self.names}", [head, page.code(self.code)])


def show(what: Any, *parts: str, docstring: bool = False) -> Listing:
    """The code of `what`, highlighted, under a link to its file that opens in JupyterLab.

    `what` is a function, class, method or module of the package, or its dotted name, of which the front may be left
    out: `"zero3.Zero3.unshard"`. Of `parts`, names inside it, only these are shown. Without `docstring`, of docstrings
    the first line is shown.

    Raises:
        UnknownName: there is nothing of this name; this KeyError names the nearest.
        TypeError: `what` has no source, or is not of the package.
    """
    module, path = _find(what.split(".")) if isinstance(what, str) else _place(what)
    source = MODULES[module].read_text(encoding="utf-8")
    tree = ast.parse(source)
    for name in path:
        tree = _inside(tree, name)
    chosen = [_inside(tree, name) for name in parts] or [tree]
    lines = source.splitlines() if docstring else _without_docstrings(source)
    code = "\n\n".join(textwrap.dedent("\n".join(_lines_of(node, lines))) for node in chosen)
    start = ".".join([module.rpartition(".")[2], *path])
    return Listing(f"{start}: {', '.join(parts)}" if parts else start, MODULES[module], code.strip("\n"))


def _place(what: Any) -> tuple[str, list[str]]:
    """The module that `what` stands in, and the names that lead to it from there."""
    module = inspect.getmodule(what)
    name = module.__name__.removeprefix("parallel_lab").removeprefix(".") if module else ""
    if name not in MODULES:
        raise TypeError(f"show: {what!r} is no function, class or module of parallel_lab")
    return name, [] if what is module else what.__qualname__.split(".")


def _find(names: list[str]) -> tuple[str, list[str]]:
    """The module that the first of `names` mean, and the names that are left."""
    for count in range(len(names), 0, -1):
        front = ".".join(names[:count])
        found = [front] if front in MODULES else [name for name in MODULES if name.endswith(f".{front}")]
        if len(found) == 1:
            return found[0], names[count:]
        if found:
            raise UnknownName(f"{front!r} may be {' or '.join(found)}")
    return named("module", names[0], {name.rpartition(".")[2]: (name, names) for name in MODULES})


def _inside(node: ast.AST, name: str) -> ast.AST:
    """The function or class `name` in the body of `node`."""
    return named("part", name, {one.name: one for one in ast.iter_child_nodes(node) if isinstance(one, DEFINITIONS)})


def _without_docstrings(source: str) -> list[str | None]:
    """The lines of `source`; of a docstring only the first is left, and None stands for the others."""
    lines: list[str | None] = [*source.splitlines()]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (*DEFINITIONS, ast.Module)) and ast.get_docstring(node):
            first, last = node.body[0].lineno, node.body[0].end_lineno or 0
            if last > first:
                lines[first - 1] = f'{lines[first - 1]}"""'
                lines[first:last] = [None] * (last - first)
    return lines


def _lines_of(node: ast.AST, lines: Sequence[str | None]) -> list[str]:
    """Those of `lines` that are left of `node`, from its first decorator."""
    if isinstance(node, DEFINITIONS):
        start = min(one.lineno for one in (node, *node.decorator_list))
        lines = lines[start - 1 : node.end_lineno]
    return [line for line in lines if line is not None]
