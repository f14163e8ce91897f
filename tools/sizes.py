"""Warns where a file, a function or a cell of a notebook is longer than a reader takes in at one sitting.

Run by `make lint`. Code lines count; docstrings, comments, blank lines and imports do not, so nobody saves on words.
The limits are advice: where one is in the way of clarity, clarity wins. The exit code is always 0.
"""

import ast
import io
import json
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE, FUNCTION, CELL = 150, 25, 25
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SILENT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def span(node: ast.AST) -> set[int]:
    """The numbers of the lines from the first to the last of `node`."""
    return set(range(getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) + 1))


def code_lines(text: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines of `text` that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        words = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if words or isinstance(node, ast.Import | ast.ImportFrom):
            lines -= span(node)
    return lines


def long_parts(path: Path) -> Iterator[str]:
    """A warning for the file, if it is long, and for each long function in it."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = code_lines(text, tree)
    name = path.relative_to(ROOT)
    if len(lines) > FILE:
        yield f"{name}: {len(lines)} lines of code, {FILE} fit a sitting"
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            count = len(lines & span(node))
            if count > FUNCTION:
                yield f"{name}:{node.lineno}: {node.name} has {count} lines of code, {FUNCTION} are easy to follow"


def long_cells(path: Path) -> Iterator[str]:
    """A warning for each long code cell of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        count = sum(bool(line.strip()) for line in "".join(cell["source"]).splitlines())
        if cell["cell_type"] == "code" and count > CELL:
            yield f"{path.relative_to(ROOT)}: cell {cell['id']} has {count} lines, {CELL} fit a screen"


def main() -> None:
    """Prints every warning, then how many there are."""
    sources = [path for folder in ("parallel_lab", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
    notebooks = [path for folder in ("notebooks", "solutions") for path in sorted((ROOT / folder).glob("*.ipynb"))]
    warnings = [said for path in sources for said in long_parts(path)]
    warnings += [said for path in notebooks for said in long_cells(path)]
    print("\n".join([*warnings, f"{len(warnings)} parts are long"]))


if __name__ == "__main__":
    main()
