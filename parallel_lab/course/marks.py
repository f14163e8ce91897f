"""What nbgrader needs to know of the exercises: which cells are answers, and how many points a check gives.

    python -m parallel_lab.course.marks            writes it into the metadata of solutions/
    python -m parallel_lab.course.marks --check    only says where it is missing, exit code 1 if anywhere

An exercise is worth as many points as it has tests, and its last `check` gives one for each that passes: while
nbgrader grades, a report reads as that number (`Report.__repr__`), which nbgrader takes as partial credit. Checks of
earlier steps give none.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from parallel_lab.course.generate import BEGIN
from parallel_lab.grading.exercises import EXERCISES

SCHEMA = 3  # of nbgrader's metadata
CHECK = re.compile(r'^check\("(\w+)", \w+(?:, step=(\d+))?\)$', re.MULTILINE)


def graded(source: str) -> str:
    """The exercise that a cell checks as a whole, by its last step if it has steps; empty if there is none."""
    found = CHECK.search(source)
    whole = found and int(found[2] or 0) == len(EXERCISES[found[1]].steps)
    return found[1] if found and whole else ""


def mark(cell: dict[str, Any]) -> dict[str, Any] | None:
    """The metadata for nbgrader of a cell of `solutions/`; None for one that is neither an answer nor graded."""
    source = "".join(cell["source"])
    about = {"grade_id": cell["id"], "schema_version": SCHEMA, "task": False}
    if cell["cell_type"] != "code":
        return None
    if BEGIN in source:
        return about | {"grade": False, "locked": False, "solution": True}
    if name := graded(source):
        return about | {"grade": True, "locked": True, "solution": False, "points": len(EXERCISES[name].tests)}
    return None


def marked(text: str) -> str:
    """The text of a solution notebook with these metadata; all else stays as it is."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        about = mark(cell)
        others = {key: value for key, value in cell["metadata"].items() if key != "nbgrader"}
        cell["metadata"] = others | ({"nbgrader": about} if about else {})
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser("parallel_lab.course.marks", description="Write nbgrader's marks into solutions/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the folder that holds solutions/")
    options = parser.parse_args(arguments)
    stale = []
    for file in sorted((options.root / "solutions").glob("*.ipynb")):
        text = file.read_text(encoding="utf-8")
        if (new := marked(text)) != text:
            stale.append(file.name)
            if not options.check:
                file.write_text(new, encoding="utf-8")
    for name in stale:
        print(f"{name} is out of date: run python -m parallel_lab.course.marks" if options.check else f"wrote {name}")
    return int(bool(stale) and options.check)


if __name__ == "__main__":
    sys.exit(main())
