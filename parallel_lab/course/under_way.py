"""A line that says how far long work is, under the cell or in a terminal; it is gone at the end."""

import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

QUIET = "PARALLEL_LAB_QUIET"  # set where outputs are compared with stored ones: a line would leave an empty one


class Line:
    """A line in place of the one before; one leaves the block, and it is gone."""

    def __init__(self) -> None:
        self._display, self._width = None, 0

    def __enter__(self) -> "Line":
        return self

    def __call__(self, text: str) -> None:
        """Shows `text` in place of what stood there."""
        ipython = sys.modules.get("IPython")
        if QUIET in os.environ:
            return
        if ipython and hasattr(ipython.get_ipython(), "kernel"):
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
