"""What there is to solve, in the order of the course, from texts and notebooks alone: no grader and no torch is loaded.

The order is that of the notebooks: a task stands where its first `check("name", ...)` stands.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from parallel_lab.course import workspace

_DEFINING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


class Task(NamedTuple):
    """An exercise as `next` and `list` speak of it; its hints and graders are in `grading.exercises`."""

    name: str  # of the function that the learner writes
    title: str
    level: str  # `easy`, `medium` or `hard`
    minutes: int
    notebook: str  # the name of its file, without folder and ending
    gap: bool  # whether it stands in a chapter, and not in an exercise notebook

    @property
    def chapter(self) -> str:
        """The two digits of its chapter."""
        return self.notebook[:2]

    @property
    def folder(self) -> str:
        """The folder of its notebook."""
        return "notebooks" if self.gap else "exercises"

    @property
    def file(self) -> Path:
        """The learner's notebook, which may not be there yet."""
        return workspace.work() / self.folder / f"{self.notebook}.ipynb"

    @property
    def anchor(self) -> str:
        """What JupyterLab finds its cell by, `#cell-id=ring-shift-task`; empty if no cell checks it."""
        _, cell = _checked(workspace.root() / self.folder / self.file.name).get(self.name, (0, ""))
        return f"#cell-id={cell}" if cell else ""

    def __str__(self) -> str:
        return f"{self.name}: {self.title} ({'gap' if self.gap else 'exercise'}, {self.level}, {self.minutes} min)"


def tasks() -> dict[str, Task]:
    """All tasks by name, in the order of the course: by chapter, and in each the gaps first."""

    def place(task: Task) -> tuple:
        where = _checked(workspace.root() / task.folder / task.file.name)
        return task.chapter, not task.gap, where.get(task.name, (len(where), ""))

    return {task.name: task for task in sorted(_texts(), key=place)}


@cache
def _texts() -> list[Task]:
    """The tasks as their Markdown files have them."""
    found = []
    for file in Path(__file__).parents[1].glob("grading/*/*.md"):
        text, gap = file.read_text(encoding="utf-8"), file.parent.name == "gaps"
        said = dict(re.findall(r"^(\w+): (.*)$", text, re.MULTILINE))
        minutes = sum(map(int, re.findall(r"^(?:minutes|step): (\d+)", text, re.MULTILINE)))
        found.append(Task(file.stem, said["title"], said["level"], minutes, said["notebook"], gap))
    return found


@cache
def _checked(notebook: Path) -> dict[str, tuple[int, str]]:
    """The tasks that `notebook` checks: the place, and the id of the cell of words above each and above its steps."""
    found, above = {}, ""
    for place, cell in enumerate(cells(notebook) if notebook.is_file() else []):
        if cell["cell_type"] == "markdown":
            is_step = re.match(r"### Step \d", "".join(cell["source"]))
            above = above if is_step else cell.get("id", "")
        elif match := re.search(r'^check\("(\w+)"', "".join(cell["source"]), re.MULTILINE):
            found.setdefault(match[1], (place, above))
    return found


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook's file.

    Raises:
        ValueError: it is no notebook.
    """
    try:
        return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook.name} is not a notebook: {error}") from None


def without_magics(source: str) -> list[str]:
    """The lines of a cell; those that only IPython understands are empty."""
    return ["" if line.lstrip().startswith(("%", "!", "?")) else line for line in source.split("\n")]


def defining(source: str, where: str) -> ast.Module:
    """The imports, definitions and assignments of a cell or a file, and no other statement.

    Raises:
        SyntaxError: it is no Python.
    """
    tree = ast.parse("\n".join(without_magics(source)), where)
    tree.body = [statement for statement in tree.body if isinstance(statement, _DEFINING)]
    return tree


def as_given(chapter: str, fn: Callable) -> bool:
    """Whether `fn` stands in a notebook of the chapter, word for word: a stub, or broken code that is to be mended."""
    try:
        source = textwrap.dedent(inspect.getsource(fn)).strip()
    except (OSError, TypeError):
        return False
    notebooks = [file for folder in ("notebooks", "exercises") for file in (workspace.root() / folder).glob("*.ipynb")]
    shown = (cells(file) for file in notebooks if file.name.startswith(chapter))
    return any(source in "".join(cell["source"]) for of_one in shown for cell in of_one)
