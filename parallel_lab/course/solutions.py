"""The reference solution of an exercise, as a function: what `solutions/` defines, and nothing else of it is run."""

from collections.abc import Callable
from typing import Any

from parallel_lab.course.tasks import cells, defining
from parallel_lab.course.workspace import root


def solution_of(exercise: Any) -> Callable:
    """The function that solves `exercise`.

    Raises:
        FileNotFoundError: its file is not here, as where the package was installed without the course.
    """
    file = root() / "solutions" / (f"gaps/{exercise.notebook}.py" if exercise.gap else f"{exercise.notebook}.ipynb")
    if not file.is_file():
        raise FileNotFoundError(f"the reference of {exercise.name} is not at hand: there is no {file}")
    if exercise.gap:
        sources = [file.read_text(encoding="utf-8")]
    else:
        sources = ["".join(cell["source"]) for cell in cells(file) if cell["cell_type"] == "code"]
    space: dict[str, Any] = {"__name__": "__solution__"}  # no module has this name: functions travel by value
    for source in sources:
        exec(compile(defining(source, file.name), file.name, "exec"), space)
    return space[exercise.name]
