"""The reference solution of an exercise, as a function: what `solutions/` defines, and nothing else of it is run."""

import ast
import json
from collections.abc import Callable
from typing import Any

from parallel_lab.course.workspace import root

_DEFINING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def solution_of(exercise: Any) -> Callable:
    """The function that solves `exercise`.

    Raises:
        FileNotFoundError: its file is not here, as where the package was installed without the course.
    """
    in_chapter = getattr(exercise, "gap", False)
    file = root() / "solutions" / (f"gaps/{exercise.notebook}.py" if in_chapter else f"{exercise.notebook}.ipynb")
    if not file.is_file():
        raise FileNotFoundError(f"the reference of {exercise.name} is not at hand: there is no {file}")
    text = file.read_text(encoding="utf-8")
    cells = [text] if in_chapter else [_code(cell) for cell in json.loads(text)["cells"]]
    space: dict[str, Any] = {"__name__": "__solution__"}  # no module has this name: functions travel by value
    for source in cells:
        tree = ast.parse(source, file.name)
        tree.body = [statement for statement in tree.body if isinstance(statement, _DEFINING)]
        exec(compile(tree, file.name, "exec"), space)
    return space[exercise.name]


def _code(cell: dict[str, Any]) -> str:
    lines = "".join(cell["source"]).split("\n") if cell["cell_type"] == "code" else []
    return "\n".join("" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)
