"""Where notebooks are, the course's and the learner's, and taking functions out of a notebook or a file."""

import ast
import linecache
import os
import sys
from pathlib import Path
from typing import Any

import nbformat

from parallel_lab.course import workspace

_MAGIC = ("%", "!", "?")
_DEFINING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


class CommandError(Exception):
    """Something that the learner can put right; the message is one line."""


def notebook_named(name: str, folder: str) -> Path:
    """`<folder>/NN_name.ipynb` of the course for `02`, `02_collectives` or the file's name.

    Raises:
        CommandError: there is none of this name, or more than one.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    files = sorted((workspace.root() / folder).glob("*.ipynb"))
    found = [file for file in files if file.stem == stem or file.stem.split("_")[0] == stem.zfill(2)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(file.stem for file in found or files) or "none"
    raise CommandError(f"no single notebook {name!r} in {folder}; there are: {known}")


def learners(file: Path) -> Path:
    """The learner's own copy of a file of the course, which need not be there yet."""
    return workspace.work() / file.relative_to(workspace.root())


def functions_in(file: Path) -> dict[str, Any]:
    """What the code cells of a notebook define. Runs imports, definitions and assignments, and no other statement."""
    try:
        notebook = nbformat.reads(file.read_text(encoding="utf-8"), as_version=4)
    except Exception as error:  # nbformat raises many kinds; all mean the same to the reader
        raise CommandError(f"{file.name} is not a notebook: {_line(error)}") from None
    space: dict[str, Any] = {}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            lines = ["" if line.lstrip().startswith(_MAGIC) else line for line in cell.source.split("\n")]
            where = f"{file.name}, cell {cell.get('id', number)}"
            _run("\n".join(lines), where, space, _DEFINING)
            linecache.cache[where] = (
                1,
                None,
                [f"{line}\n" for line in lines],
                where,
            )  # reports show the learner's line
    return space


def function_of(target: str) -> Any:
    """The function that `FILE.py:FUNCTION` names."""
    name, _, function = target.rpartition(":")
    file = Path(name)
    if not name or not function or not file.is_file():
        raise CommandError(f"{target!r}: expected FILE.py:FUNCTION with an existing file")
    space: dict[str, Any] = {"__file__": str(file)}
    sys.path.insert(0, os.fspath(file.resolve().parent))
    _run(file.read_text(encoding="utf-8"), os.fspath(file), space)
    if not callable(space.get(function)):
        raise CommandError(f"{file} has no function {function!r}")
    return space[function]


def _run(source: str, where: str, space: dict[str, Any], kinds: tuple[type[ast.stmt], ...] = (ast.stmt,)) -> None:
    """Runs the statements of these `kinds`, under a name that no module has: their functions travel by value."""
    space["__name__"] = "__plab__"
    try:
        tree = ast.parse(source, where)
        tree.body = [statement for statement in tree.body if isinstance(statement, kinds)]
        exec(compile(tree, where, "exec"), space)
    except Exception as error:
        raise CommandError(f"{where}: {type(error).__name__}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
