"""Takes docs/screenshot.png: runs the first notebook in JupyterLab and shows its training cell with its timeline.

    .venv/bin/python docs/screenshot.py

Needs chromium and playwright. It drives the page as tests/browser does, on a copy of the course.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))

from lab_page import Notebook, browse  # pyright: ignore[reportMissingImports]
from lab_server import copy_course, serve  # pyright: ignore[reportMissingImports]

DOCS = Path(__file__).resolve().parent
NAME = "notebooks/00_start_here.ipynb"
WIDTH, HEIGHT = 1440, 900
TRAINING = "train"  # a tag or a piece of the source of the cell to begin with
TIMELINE = ".interactive()"
RUN_ALL_MS = 180_000
MOST_BYTES = 300_000


def main() -> int:
    """Takes the picture; returns 1, with one line, if cells did not run or the file is too big for a README."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "course"
        source = nbformat.read(copy_course(NAME, root), as_version=4)
        with serve(root, Path(folder), NAME) as address, browse(address, DOCS, WIDTH, HEIGHT) as (page, _):
            notebook = Notebook(page, source)
            if late := notebook.run_all(RUN_ALL_MS):
                return _refuse(f"not run in their turn: {late}")
            arrange(notebook)
            taken = page.screenshot(path=DOCS / "screenshot.png")
    if len(taken) > MOST_BYTES:
        return _refuse(f"docs/screenshot.png has {len(taken):,} bytes, and {MOST_BYTES:,} at most are wanted")
    print(f"docs/screenshot.png: {len(taken):,} bytes")
    return 0


def arrange(notebook: Notebook) -> None:
    """Folds the side bar away, zooms the timeline a little, and brings the training cell to the top."""
    page = notebook.page
    page.keyboard.press("Control+B")
    timeline = notebook.outputs(TIMELINE).locator(".plab-timeline")
    timeline.focus()
    timeline.evaluate("root => root.blur()")
    notebook.cell(TRAINING).evaluate("cell => cell.scrollIntoView({ block: 'start' })")
    page.mouse.move(WIDTH - 5, HEIGHT // 2)


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
