"""What a learner does with a notebook in JupyterLab, as functions on the page of a real browser.

Cells are found by id, by tag, or by a piece of their source, as the notebook file has them, so that a notebook may be
rewritten without a change here.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from nbformat import NotebookNode
from playwright.sync_api import ConsoleMessage, Error, Locator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
LOAD_MS = 60_000
_RUN = re.compile(r"\[\d+\]:")


@dataclass
class Console:
    """What the page said and asked for.

    Attributes:
        lines: everything that was written to the console, as `level: text (where)`.
        errors: the lines of level error, and exceptions that nobody caught.
        hosts: the hosts that the page asked for anything; no host for what came with the page (`data:`, `blob:`).
    """

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def listen(self, page: Page) -> None:
        """Begins to note what `page` says."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._note("error", f"uncaught: {error.stack or error.message}", True))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname or ""))

    def _said(self, message: ConsoleMessage) -> None:
        self._note(message.type, f"{message.text} ({message.location['url']})", message.type == "error")

    def _note(self, level: str, text: str, wrong: bool) -> None:
        self.lines.append(f"{level}: {text}")
        if wrong:
            self.errors.append(text)


@contextmanager
def browse(address: str, evidence: Path, width: int = 1280, height: int = 900) -> Iterator[tuple[Page, Console]]:
    """A page of a fresh chromium at `address`. If the block fails, a screenshot and the console go to `evidence`."""
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page, console = browser.new_page(viewport={"width": width, "height": height}), Console()
        console.listen(page)
        try:
            page.goto(address, timeout=LOAD_MS)
            yield page, console
        except BaseException as error:
            error.add_note(_keep(page, console, evidence))
            raise
        finally:
            browser.close()


def _keep(page: Page, console: Console, folder: Path) -> str:
    (folder / "console.log").write_text("\n".join(console.lines) + "\n")
    said = f"What the console said until it failed: {folder / 'console.log'}"
    try:
        page.screenshot(path=folder / "screenshot.png")
    except Error as gone:  # the page itself has crashed or hangs
        return f"{said}; no screenshot: {gone}"
    return f"{said}; the page: {folder / 'screenshot.png'}"


class Notebook:
    """An open notebook: `page` shows what the file `source` holds.

    Every cell must be on the page (`windowingMode` none), for cells are found by their place.
    """

    def __init__(self, page: Page, source: NotebookNode) -> None:
        self.page, self.source = page, source
        self.cells = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell")
        expect(self.cells).to_have_count(len(source.cells), timeout=LOAD_MS)
        self.wait_idle()

    def place(self, key: str) -> int:
        """The place of the first cell with the id or tag `key`, else of the first code cell that has `key` in it."""
        cells = list(enumerate(self.source.cells))
        named = [i for i, cell in cells if key == cell.id or key in cell.metadata.get("tags", ())]
        written = [i for i, cell in cells if cell.cell_type == "code" and key in cell.source]
        if not named + written:
            raise LookupError(f"no cell has the id or tag {key!r}, or has it in its source")
        return (named + written)[0]

    def cell(self, key: str) -> Locator:
        """The cell that `place` finds."""
        return self.cells.nth(self.place(key))

    def outputs(self, key: str) -> Locator:
        """What stands below the cell that `place` finds."""
        return self.cell(key).locator(".jp-Cell-outputArea")

    def wait_idle(self, timeout_ms: float = LOAD_MS) -> None:
        """Returns when the kernel is there and has nothing to do."""
        # The toolbar says idle before there is a kernel, and cells that are run then are dropped. The status bar waits.
        expect(self.page.locator(".jp-StatusBar-Left")).to_contain_text("| Idle", timeout=timeout_ms)

    def run_all(self, timeout_ms: float) -> list[str]:
        """Runs all cells from the menu; returns the prompts of the code cells that did not run in their turn."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        last = max(i for i, cell in enumerate(self.source.cells) if cell.cell_type == "code" and cell.source)
        expect(self._prompt(self.cells.nth(last))).to_have_text(_RUN, timeout=timeout_ms)
        self.wait_idle()
        return self._out_of_turn()

    def _out_of_turn(self) -> list[str]:
        code = [i for i, cell in enumerate(self.source.cells) if cell.cell_type == "code" and cell.source]
        shown = [i for i in code if not self.source.cells[i].metadata.get("jupyter", {}).get("source_hidden")]
        said = {i: self._prompt(self.cells.nth(i)).inner_text().strip() for i in shown}
        return [f"cell {i}: {said[i]}" for turn, i in enumerate(code, 1) if i in said and said[i] != f"[{turn}]:"]

    def _prompt(self, cell: Locator) -> Locator:
        return cell.locator(".jp-InputArea-prompt").first

    def run(self, key: str, timeout_ms: float = LOAD_MS) -> None:
        """Runs one cell by Ctrl+Enter and waits until it is over."""
        cell = self.cell(key)
        before = self._prompt(cell).inner_text()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        expect(self._prompt(cell)).not_to_have_text(before, timeout=timeout_ms)
        expect(self._prompt(cell)).to_have_text(_RUN, timeout=timeout_ms)
        self.wait_idle()

    def change_line(self, key: str, marked: str, text: str) -> None:
        """In one cell, replaces the first line that contains `marked` by `text`; the indent stays."""
        self.cell(key).locator(".cm-line", has_text=marked).first.click()
        self.page.keyboard.press("Home")
        self.page.keyboard.press("Shift+End")
        self.page.keyboard.insert_text(text)
        expect(self.cell(key).locator(".cm-content")).to_contain_text(text)

    def write(self, key: str, text: str) -> None:
        """Replaces what stands in one cell by `text`."""
        self.cell(key).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(text)
        expect(self.cell(key).locator(".cm-line").last).to_contain_text(text.splitlines()[-1].strip())

    def start(self, key: str) -> None:
        """Runs one cell by Ctrl+Enter and does not wait for its end."""
        self.cell(key).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        expect(self._prompt(self.cell(key))).to_have_text("[*]:")

    def stop(self) -> None:
        """Presses the Stop button."""
        self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) [data-command='notebook:interrupt-kernel']").click()
        self.wait_idle()
