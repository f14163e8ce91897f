"""Taking a learner's functions out of a notebook or a file, and grading them."""

from __future__ import annotations

import ast
import difflib
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallel_lab.cli import late
from parallel_lab.cli.folders import CommandError
from parallel_lab.course.tasks import Task, cells, defining, tasks, without_magics


def tasks_named(name: str) -> list[Task]:
    """The task of this name, those of this notebook, or those of this chapter, in the order of the course.

    Raises:
        CommandError: there are none; the message names the nearest.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    known = tasks()
    found = [t for t in known.values() if stem in (t.name, t.notebook) or stem.zfill(2) == t.chapter]
    if not found:
        near = difflib.get_close_matches(stem, [*known, *(t.notebook for t in known.values())], n=3)
        hint = f"the nearest are {', '.join(near)}" if near else "`plab list` names them"
        raise CommandError(f"there is no exercise, notebook or chapter {name!r} with exercises; {hint}")
    return found


def graded(task: Task, file: Path | None = None, save: bool = True) -> late.Report | None:
    """The report on the learner's answer in `file`, the learner's own notebook by default; None if it has none.

    Raises:
        CommandError: the notebook is not there, or what the answer needs cannot be read.
    """
    file = file or task.file
    if not file.is_file():
        raise CommandError(f"{file} is not there yet: `make lab` or `plab update` brings it")
    fn = functions_in(file, task.name).get(task.name)
    return late.grade(late.EXERCISES[task.name], fn, save=save) if callable(fn) else None


def functions_in(file: Path, name: str = "") -> dict[str, Any]:
    """What the code cells of a notebook define; of an answer `name`, only itself and what it uses.

    Runs imports, definitions and assignments, and no other statement.

    Raises:
        CommandError: a cell cannot be read or run; the message quotes the line.
    """
    try:
        code = [cell for cell in cells(file) if cell["cell_type"] == "code"]
    except ValueError as error:
        raise CommandError(str(error)) from None
    trees = []
    for number, cell in enumerate(code, start=1):
        source = "".join(cell["source"])
        count = cell.get("execution_count")
        where = f"{file.name}, {f'In[{count}]' if count else f'code cell {number}'}"
        lines = [f"{line}\n" for line in without_magics(source)]
        linecache.cache[where] = (1, None, lines, where)  # reports show the learner's line
        trees.append((where, _parsed(source, where, defining)))
    used = _used(name, [statement for _, tree in trees for statement in tree.body]) if name else None
    space: dict[str, Any] = {}
    for where, tree in trees:
        tree.body = [one for one in tree.body if used is None or used & _names(one, ast.Store)]
        _run(tree, where, space)
    return space


def _used(name: str, statements: list[ast.stmt]) -> set[str]:
    """`name`, and the names that its definition needs, and theirs."""
    used, wanted = set(), {name}
    while wanted:
        used |= wanted
        wanted = {n for one in statements if wanted & _names(one, ast.Store) for n in _names(one, ast.Load)} - used
    return used


def _names(statement: ast.stmt, kind: type[ast.expr_context]) -> set[str]:
    """The names that a statement binds, or that it looks up."""
    if kind is ast.Store and isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(one.asname or one.name).split(".")[0] for one in statement.names}
    if kind is ast.Store and isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, kind)}


def function_of(target: str) -> Callable:
    """The function that `FILE.py:FUNCTION` names.

    Raises:
        CommandError: there is no such file or function, or the file cannot be run.
    """
    name, _, function = target.rpartition(":")
    file = Path(name)
    if not name or not function or not file.is_file():
        raise CommandError(f"{target!r}: expected FILE.py:FUNCTION with an existing file")
    space: dict[str, Any] = {"__file__": str(file)}
    sys.path.insert(0, os.fspath(file.resolve().parent))
    where = os.fspath(file)
    _run(_parsed(file.read_text(encoding="utf-8"), where), where, space)
    if not callable(space.get(function)):
        raise CommandError(f"{file} has no function {function!r}")
    return space[function]


def _parsed(source: str, where: str, parse: Callable[[str, str], ast.Module] = ast.parse) -> ast.Module:
    try:
        return parse(source, where)
    except SyntaxError as error:
        raise CommandError(_said(error, where, error.lineno or 1, (error.text or "").strip())) from None


def _run(tree: ast.Module, where: str, space: dict[str, Any]) -> None:
    """Runs statements under a name that no module has: their functions travel by value."""
    space["__name__"] = "__plab__"
    try:
        exec(compile(tree, where, "exec"), space)
    except Exception as error:
        places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == where]
        line, text = (places[-1].lineno, places[-1].line) if places else (1, "")
        raise CommandError(_said(error, where, line or 1, text or "")) from None


def _said(error: Exception, where: str, line: int, text: str) -> str:
    what = str(error.msg if isinstance(error, SyntaxError) else error).strip().split("\n")[0]
    return f"{where}, line {line}, `{text}`: {type(error).__name__}: {what}"
