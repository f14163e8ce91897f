"""A small coding task of an interview: its text and stub out of the chapter, and a function out of what was typed."""

import ast
import linecache
import re
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from parallel_lab.course import workspace
from parallel_lab.course.tasks import Task, cells, without_magics
from parallel_lab.course.terms import read

_WHERE = "<your answer>"


def stub(task: Task, language: str = "en") -> tuple[str, str]:
    """What the chapter says above a gap, as Markdown without its links, and the code that is to be completed.

    In Chinese it is what `gaps_zh.yaml` says in its place; the code is the same.

    Raises:
        FileNotFoundError: the course's notebooks are not at hand.
    """
    notebook = workspace.root() / task.folder / task.file.name
    if not notebook.is_file():
        raise FileNotFoundError(f"{notebook.name} is not there: an interview takes its coding tasks out of it")
    said = ""
    for cell in cells(notebook):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            said = source
        elif re.search(rf"^def {task.name}\(", source, re.MULTILINE):
            chinese = said_in_chinese(task.name)["task"] if language == "zh" else ""
            return chinese or re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", said), source
    raise ValueError(f"{notebook.name} has no stub of {task.name}")


def said_in_chinese(name: str) -> Mapping[str, str]:
    """A gap's `task` and, once it is solved, its `note` in Chinese."""
    return read("gaps_zh", "interview")[name]


def imported(task: Task) -> dict[str, Any]:
    """What the course's own answer to a gap imports, `math` or `torch`: a short answer leaves such lines out."""
    file, space = workspace.root() / "solutions" / "gaps" / f"{task.notebook}.py", {}
    if file.is_file():
        lines = ast.parse(file.read_text(encoding="utf-8")).body
        imports: list[ast.stmt] = [one for one in lines if isinstance(one, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), file, "exec"), space)
    return space


def function_from(source: str, name: str, known: Mapping[str, Any] = MappingProxyType({})) -> Callable | None:
    """The function `name` that `source` defines; without it, the one of the notebook in which this runs, if any.

    Args:
        source: what was typed.
        name: of the function.
        known: names that it finds.

    Raises:
        ValueError: the source cannot be read or run; the message quotes the line.
    """
    if not source.strip():
        return getattr(sys.modules["__main__"], name, None)
    lines = without_magics(source)
    linecache.cache[_WHERE] = (1, None, [f"{line}\n" for line in lines], _WHERE)  # reports show the learner's line
    space: dict[str, Any] = {**known, "__name__": "__answer__"}
    try:
        exec(compile(ast.parse("\n".join([*lines, ""])), _WHERE, "exec"), space)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}, `{(error.text or '').strip()}`: {error.msg}") from None
    except (Exception, SystemExit) as error:  # whatever the learner's lines raise is said, and nothing more
        raise ValueError(f"your lines raise {type(error).__name__}: {error}") from None
    found = space.get(name)
    return found if callable(found) else None
