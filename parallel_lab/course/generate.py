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
    kept: list[str] = []
    shown: list[str] = []
    indent = None
    for line in source.split("\n"):
        text = line.strip()
        if text == BEGIN:
            if indent is not None:
                raise BadSource(f"{where}: {BEGIN} inside a solution")
            indent, shown = line[: len(line) - len(line.lstrip())], []
        elif text == END:
            if indent is None:
                raise BadSource(f"{where}: {END} without {BEGIN}")
            kept += [indent + one for one in shown or [STUB]]
            indent = None
        elif indent is None:
            kept.append(line)
        elif text.startswith(SHOWN):
            shown.append(text.removeprefix(SHOWN).removeprefix(" "))
    if indent is not None:
        raise BadSource(f"{where}: {BEGIN} without {END}")
    return "\n".join(kept)


def exercise_of(solution: NotebookNode, name: str) -> NotebookNode:
    """The exercise notebook for a solution notebook."""
    cells = [_cell(cell, f"{name}, cell {cell.id}") for cell in solution.cells]
    metadata = {key: solution.metadata[key] for key in ("kernelspec", "language_info") if key in solution.metadata}
    if "language_info" in metadata:
        metadata["language_info"] = {"name": metadata["language_info"]["name"]}  # its version is that of some machine
    return NotebookNode(nbformat=4, nbformat_minor=5, metadata=metadata, cells=cells)


def _check_ids(ids: list, name: str) -> None:
    for place, one in enumerate(ids):
        if not one or ids.index(one) != place:
            raise BadSource(f"{name}, cell {place}: its id {one!r} is missing or used twice")


def _cell(cell: NotebookNode, where: str) -> NotebookNode:
    kept = {"id": cell.id, "cell_type": cell.cell_type, "metadata": {}, "source": cell.source}
    if tags := cell.metadata.get("tags"):
        kept["metadata"] = {"tags": list(tags)}
    if cell.cell_type == "code":
        kept |= {"source": strip(cell.source, where), "outputs": [], "execution_count": None}
    return NotebookNode(kept)


def text_of(notebook: NotebookNode) -> str:
    """The bytes of a notebook file, the same for the same notebook."""
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
        _check_ids(ids, file.name)  # before nbformat replaces them by random ones
        solution = nbformat.reads(text, as_version=4)
    except BadSource:
        raise
    except Exception as error:  # nbformat raises many kinds; all mean the same to the reader
        raise BadSource(f"{file.name} is not a notebook: {error}") from None
    return text_of(exercise_of(solution, file.name))


def outdated(root: Path) -> list[str]:
    """The names whose exercise is not what its solution gives, and exercises that have no solution."""
    names = {file.stem for file in (root / "solutions").glob("*.ipynb")}
    stray = sorted({file.stem for file in (root / "exercises").glob("*.ipynb")} - names)
    return [
        name for name in sorted(names) if _read(root / "exercises" / f"{name}.ipynb") != generate(root, name)
    ] + stray


def _read(file: Path) -> str | None:
    return file.read_bytes().decode("utf-8", errors="replace") if file.is_file() else None


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m parallel_lab.course.generate", description="Write exercises/ from solutions/."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if an exercise is out of date")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the folder that holds solutions/ and exercises/")
    options = parser.parse_args(arguments)
    try:
        stale = outdated(options.root)
        for name in stale:
            if options.check:
                print(f"exercises/{name}.ipynb is out of date: run python -m parallel_lab.course.generate")
            elif (options.root / "solutions" / f"{name}.ipynb").is_file():
                write(options.root, name)
                print(f"wrote exercises/{name}.ipynb")
            else:
                print(f"exercises/{name}.ipynb has no solution; it was left alone")
    except BadSource as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if stale and options.check else 0


def write(root: Path, name: str) -> Path:
    """Writes `exercises/<name>.ipynb` and returns it."""
    file = root / "exercises" / f"{name}.ipynb"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(generate(root, name).encode("utf-8"))
    return file


if __name__ == "__main__":
    sys.exit(main())
