"""Takes docs/screenshot.png: the first notebook in JupyterLab, run, with its timeline and a deadlock report beside it.

    .venv/bin/python docs/screenshot.py

Needs chromium and playwright. It works the page as tests/browser does, on a copy of the course: what the picture shows
is what ran. The panes on the right are JupyterLab's own views of an output ("Create New View for Cell Output").
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))

from lab_page import Notebook, browse  # pyright: ignore[reportMissingImports]
from lab_server import copy_course, serve  # pyright: ignore[reportMissingImports]
from playwright.sync_api import Locator, Page, expect

DOCS = Path(__file__).resolve().parent
NAME = "notebooks/00_start_here.ipynb"
TRAINING, TIMELINE, DEADLOCK = "train", "timeline-interactive", "deadlock"  # tags of cells
WIDTH, HEIGHT = 1440, 900
LEFT_SHARE, UPPER_SHARE = 0.552, 0.68  # of the notebook in the width, of the timeline in the height
RUN_ALL_MS = 180_000
MOST_BYTES = 300_000
# Small enough for the lines of the training loop and of the table to stay whole.
STYLE = ":root { --jp-code-font-size: 10.8px !important; --jp-content-font-size1: 13px !important; }"


def main() -> int:
    """Takes the picture; returns 1, with one line, if cells did not run or the file is too big for a README."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "course"
        source = nbformat.read(copy_course(NAME, root), as_version=4)
        with serve(root, Path(folder), NAME) as address, browse(address, Path(folder), WIDTH, HEIGHT) as (page, _):
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
    """Training cell and its output on the left, timeline and deadlock report on the right; no side bar."""
    page = notebook.page
    page.add_style_tag(content=STYLE)
    page.keyboard.press("Control+B")
    expect(page.locator("#jp-left-stack")).to_be_hidden()
    main = _box(page.locator("#jp-main-dock-panel"))
    right, middle = main["x"] + main["width"] - 15, main["y"] + main["height"] / 2
    view_output(notebook, TIMELINE, ".plab-timeline", right, middle)
    view_output(notebook, DEADLOCK, "pre", right - 100, main["y"] + main["height"] - 120)
    drag_handle(page, "horizontal", main["x"] + LEFT_SHARE * main["width"], middle)
    drag_handle(page, "vertical", right - 100, main["y"] + UPPER_SHARE * main["height"])
    page.keyboard.press("Control+S")
    expect(page.locator("#jp-main-statusbar")).to_contain_text("Saving completed")
    expect(page.locator("#jp-main-statusbar")).not_to_contain_text("Saving")
    notebook.cell(TRAINING).evaluate("cell => cell.scrollIntoView({ block: 'start' })")
    page.mouse.move(WIDTH / 2, 12)


def view_output(notebook: Notebook, key: str, inside: str, x: float, y: float) -> None:
    """Opens a view of an output and drags its tab to (x, y), near the edge where it shall stand."""
    page = notebook.page
    tabs = page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="Output View")
    before = tabs.count()
    notebook.outputs(key).locator(inside).first.click(button="right", position={"x": 5, "y": 5})
    page.get_by_role("menuitem", name="Create New View for Cell Output").click()
    expect(tabs).to_have_count(before + 1)
    tab = _box(page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab.lm-mod-current", has_text="Output View").last)
    drag(page, tab["x"] + 40, tab["y"] + 10, x, y)


def drag_handle(page: Page, orientation: str, x: float, y: float) -> None:
    """Moves the border between two panes; a `horizontal` one has its panes side by side."""
    handle = _box(page.locator(f".lm-DockPanel-handle[data-orientation={orientation}]:not(.lm-mod-hidden)").first)
    drag(page, handle["x"] + min(2, handle["width"]), handle["y"] + min(2, handle["height"]), x, y)


def drag(page: Page, from_x: float, from_y: float, x: float, y: float) -> None:
    """Presses at one point, moves to the other, lets go."""
    page.mouse.move(from_x, from_y)
    page.mouse.down()
    page.mouse.move(x, y, steps=12)
    page.mouse.up()


def _box(locator: Locator) -> dict:
    found = locator.bounding_box()
    if found is None:
        raise LookupError(f"not on the page: {locator}")
    return dict(found)


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
