"""What a reader sees of the ranks: one progress bar while they run, and in the end what each printed."""

import contextvars
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

WIDTH = 30
QUIET = "PARALLEL_LAB_QUIET"  # set where outputs are compared with stored ones: a line would leave an empty one


class Bar:
    """How far the slowest rank has come: under the cell, or a line of the terminal that writes over itself."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[int, int | None]] = {}
        self.label = ""
        self._display = None

    def __call__(self, rank: int, label: str, done: int, total: int | None) -> None:
        """Takes a rank's report."""
        if label != self.label:
            self.done.clear()
        self.label, self.done[rank] = label, (done, total)
        self._show(self.text())

    def text(self) -> str:
        """The bar as text: the label, the bar, and how many of how many."""
        done, total = min(self.done.values(), key=lambda report: report[0])
        head = f"{self.label} " if self.label else ""
        if not total:
            return f"{head}{done} done"
        filled = WIDTH * done // total
        return f"{head}[{'#' * filled}{'.' * (WIDTH - filled)}] {done} of {total}"

    def close(self) -> None:
        """Ends the line in a terminal."""
        if self.done and self._display is None and sys.stderr.isatty():
            print(file=sys.stderr)

    def _show(self, text: str) -> None:
        if (ipython := _in_a_kernel()) is not None:
            data = {"text/plain": text}
            if self._display is None:
                self._display = ipython.display.display(data, raw=True, display_id=True)
            else:
                self._display.update(data, raw=True)
        elif sys.stderr.isatty():
            print("\r" + text, end="", file=sys.stderr, flush=True)


class Line:
    """A line that says how far one is: under the cell, or in a terminal. It is gone at the end."""

    def __init__(self) -> None:
        self._display, self._width = None, 0

    def __enter__(self) -> "Line":
        return self

    def __call__(self, text: str) -> None:
        """Shows `text` in place of what stood there."""
        if QUIET in os.environ:
            return
        if (ipython := _in_a_kernel()) is not None:
            shown = ipython.display.HTML(f'<div role="status">{escape(text)}</div>')
            if self._display:
                self._display.update(shown)
            else:
                self._display = ipython.display.display(shown, display_id=True)
        elif sys.stderr.isatty():
            print(f"\r{text.ljust(self._width)}", end="", file=sys.stderr, flush=True)
            self._width = max(self._width, len(text))

    def __exit__(self, *error: object) -> None:
        if self._display:
            self._display.update(sys.modules["IPython"].display.HTML(""))
        elif self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def said_while_it_lasts(text: Callable[[float], str], after_s: float = 3.0, every_s: float = 1.0) -> Iterator[None]:
    """Shows the line `text(seconds)` while the block runs, once it has run for `after_s`; a short one says nothing."""
    ended, began_s = threading.Event(), time.perf_counter()

    def tell() -> None:
        wait_s = after_s
        while not ended.wait(wait_s):
            wait_s = every_s
            line(text(time.perf_counter() - began_s))

    with Line() as line:
        # The kernel knows by its context under which cell something is to be shown.
        thread = threading.Thread(target=contextvars.copy_context().run, args=(tell,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def replay(output: Sequence[str]) -> None:
    """Prints what the ranks printed, in rank order, each line with its rank.

    Of lines that were written again and again, as progress bars and bars under bars are, the last state is shown.
    """
    for rank, text in enumerate(output):
        for line in on_a_terminal(text.removesuffix("\n")) if text else ():
            print(f"[rank {rank}] {line}")


def _in_a_kernel() -> Any:
    """IPython, where a notebook's kernel runs this; else None."""
    ipython = sys.modules.get("IPython")
    return ipython if ipython and hasattr(ipython.get_ipython(), "kernel") else None


def on_a_terminal(text: str) -> list[str]:
    """The lines that a terminal shows in the end: a carriage return writes over a line, ESC [ A goes one line up."""
    lines, row, over = [""], 0, False
    for part in re.split(r"(\n|\r|\x1b\[A)", text):
        if part == "\n":
            row, over = row + 1, False
            lines += [""] * (row == len(lines))
        elif part == "\x1b[A":
            row = max(row - 1, 0)
        elif part == "\r":
            over = True
        elif part:
            lines[row], over = part if over else lines[row] + part, False
    return lines
