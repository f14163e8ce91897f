"""Runs cells in a namespace of their own and catches what they show, as text and as HTML.

What a cell shows is caught and not shown at once: a button has no place of its own for outputs, and the learner's names
stay as they are.
"""

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from IPython.core.displaypub import DisplayPublisher
from IPython.display import display

from parallel_lab.course import page
from parallel_lab.interview.board import block, picture_html
from parallel_lab.interview.needed import Cell
from parallel_lab.interview.statements import value_of

MOST = 400  # characters of an error; a launch tells what each rank waits for
Shown = list[page.Part]


class CellFailed(RuntimeError):
    """A cell raised; the message names the cell and the error."""


def new_space() -> dict[str, Any]:
    """Names for cells to run in, under a name that no module has: their functions travel to ranks by value."""
    return {"__name__": "__plab__", "display": display}


def run_cell(cell: Cell, space: dict[str, Any], place: str) -> Shown:
    """Runs `cell` and returns what it showed, its last expression among it.

    Args:
        cell: a cell of code.
        space: the names that it finds and leaves.
        place: where it stands, for messages.

    Raises:
        CellFailed: it raised.
    """
    tree, where = cell.tree, f"{place}, {cell.id}"
    with captured() as shown:
        try:
            _show(value_of(tree, cell.source, where, space))
        except Exception as error:
            said = " ".join(str(error).split())[:MOST]
            raise CellFailed(f"{where}: {type(error).__name__}: {said}") from error
    return shown


def _show(value: Any) -> None:
    if value is not None:
        display(value) if shell() else print(repr(value))


@contextlib.contextmanager
def captured() -> Iterator[Shown]:
    """Catches what is printed and displayed, in the order in which it comes; what goes to stderr is dropped."""
    shown: Shown = []
    here = shell()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(_Printed(shown)))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if here:
            before, here.display_pub = here.display_pub, _Displayed(shown)
            stack.callback(setattr, here, "display_pub", before)
        yield shown


def shell() -> Any:
    """The IPython that runs here; None in a script."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


class _Printed(io.TextIOBase):
    """A stream whose texts become parts; what is written on the same run of lines is one part."""

    def __init__(self, shown: Shown) -> None:
        self.shown, self.text, self.own = shown, "", -1

    def write(self, text: str) -> int:
        if not text:
            return 0
        if self.own != len(self.shown) - 1 or self.own < 0:
            self.shown.append(page.Part("", ""))
            self.own, self.text = len(self.shown) - 1, ""
        self.text += text
        self.shown[self.own] = block(self.text.rstrip("\n"))
        return len(text)


class _Displayed(DisplayPublisher):
    """A publisher that keeps what is displayed."""

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self.kept = shown

    def publish(self, data: Any, metadata: Any = None, *_: Any, **more: Any) -> None:
        """Keeps one output."""
        self.kept.append(as_part(data, metadata or {}))

    def clear_output(self, wait: bool = False) -> None:
        """Forgets what was displayed."""
        self.kept.clear()


def as_part(data: Mapping[str, Any], metadata: Mapping[str, Any]) -> page.Part:
    """An output by the richest form that a page can hold: HTML, a picture, or text."""
    text = str(data.get("text/plain", ""))
    if html := data.get("text/html"):
        return page.Part("".join(html), text)
    if png := data.get("image/png"):
        return page.Part(picture_html("".join(png), str(metadata.get("alt") or text)), text)
    return block(text)
