"""Writes `exercises/NN_name.ipynb` from `solutions/NN_name.ipynb`, the single source.

    python -m parallel_lab.course.generate            writes all
    python -m parallel_lab.course.generate --check    only says which are out of date, exit code 1 if any

In a code cell, the lines from `### BEGIN SOLUTION` to `### END SOLUTION` become `raise NotImplementedError("write me")`
with the indent of the marker. Where the exercise should show something else, for example broken code to be mended, the
solution carries it in lines that begin with `#|`, and those take the place instead. Outputs and execution counts go;
cell ids stay. The same source always gives the same bytes.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

BEGIN, END, SHOWN = "### BEGIN SOLUTION", "### END SOLUTION", "#|"
STUB = 'raise NotImplementedError("write me")'


class BadSource(ValueError):
    """A solution notebook cannot be turned into an exercise; the message names notebook and cell."""


def strip(source: str, where: str = "cell") -> str:
    """`source` with each solution replaced by its stub.

    Raises:
        BadSource: the markers are unbalanced; the message names `where`.
    """

    def shown(solution: re.Match) -> str:
        indent, body = solution.groups()
        if BEGIN in body:
            raise BadSource(f"{where}: {BEGIN} inside a solution")
        lines = re.findall(rf"^\s*{re.escape(SHOWN)} ?(.*)$", body, re.MULTILINE)
        return "\n".join(indent + line for line in lines or [STUB])

    stripped = re.sub(rf"^(.*){BEGIN}\n((?:.*\n)*?) *{END}$", shown, source, flags=re.MULTILINE)
    for marker, other in ((BEGIN, END), (END, BEGIN)):
        if marker in stripped:
            raise BadSource(f"{where}: {marker} without {other}")
    return stripped


def exercise_of(solution: NotebookNode, name: str) -> NotebookNode:
    """The exercise notebook for the solution notebook called `name`."""
    metadata = {key: solution.metadata[key] for key in ("kernelspec", "language_info") if key in solution.metadata}
    if "language_info" in metadata:
        metadata["language_info"] = {"name": metadata["language_info"]["name"]}  # its version is that of some machine
    cells = [_cell(cell, f"{name}, cell {cell.id}") for cell in solution.cells]
    return NotebookNode(nbformat=4, nbformat_minor=5, metadata=metadata, cells=cells)


def _cell(cell: NotebookNode, where: str) -> NotebookNode:
    tags = cell.metadata.get("tags")
    kept = {"id": cell.id, "cell_type": cell.cell_type, "metadata": {"tags": list(tags)} if tags else {}}
    if cell.cell_type == "code":
        return NotebookNode(kept, source=strip(cell.source, where), outputs=[], execution_count=None)
    return NotebookNode(kept, source=cell.source)


def text_of(notebook: NotebookNode) -> str:
    """The text of a notebook file, the same for the same notebook."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1, sort_keys=True).rstrip("\n") + "\n"


def generate(root: Path, name: str) -> str:
    """The text of `exercises/<name>.ipynb` as it should be.

    Raises:
        BadSource: the solution cannot be read, or its markers are unbalanced.
    """
    file = root / "solutions" / f"{name}.ipynb"
    text = file.read_text(encoding="utf-8")
    try:
        ids = [cell.get("id") for cell in json.loads(text)["cells"]]
        for place, one in enumerate(ids):  # before nbformat replaces them by random ones
            if not one or ids.index(one) != place:
                raise BadSource(f"{file.name}, cell {place}: its id {one!r} is missing or used twice")
        solution = nbformat.reads(text, as_version=4)
    except BadSource:
        raise
    except Exception as error:  # nbformat raises many kinds; all mean the same to the reader
        raise BadSource(f"{file.name} is not a notebook: {error}") from None
    return text_of(exercise_of(solution, file.name))


def write(root: Path, name: str) -> None:
    """Writes `exercises/<name>.ipynb`."""
    file = root / "exercises" / f"{name}.ipynb"
    file.parent.mkdir(exist_ok=True)
    file.write_text(generate(root, name), encoding="utf-8")


def bring_up_to_date(root: Path, check: bool) -> bool:
    """Writes each exercise that is not what its solution gives, or only says so; returns whether there was any."""
    solutions, exercises = ({file.stem for file in (root / of).glob("*.ipynb")} for of in ("solutions", "exercises"))
    stale = False
    for name in sorted(solutions | exercises):
        file = root / "exercises" / f"{name}.ipynb"
        if name not in solutions:
            print(f"{file.relative_to(root)} has no solution; it was left alone")
        elif name in exercises and file.read_text(encoding="utf-8", errors="replace") == generate(root, name):
            continue
        elif check:
            print(f"{file.relative_to(root)} is out of date: run python -m parallel_lab.course.generate")
        else:
            write(root, name)
            print(f"wrote {file.relative_to(root)}")
        stale = True
    return stale


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser("parallel_lab.course.generate", description="Write exercises/ from solutions/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if an exercise is out of date")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the folder that holds solutions/ and exercises/")
    options = parser.parse_args(arguments)
    try:
        return int(bring_up_to_date(options.root, options.check) and options.check)
    except BadSource as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
