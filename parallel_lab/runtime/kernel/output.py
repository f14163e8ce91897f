"""What a reader sees of the ranks: one progress bar while they run, and in the end what each printed."""

import re
import sys
from collections.abc import Sequence

WIDTH = 30


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
        ipython = sys.modules.get("IPython")
        if ipython and (shell := ipython.get_ipython()) and hasattr(shell, "kernel"):
            data = {"text/plain": text}
            if self._display is None:
                self._display = ipython.display.display(data, raw=True, display_id=True)
            else:
                self._display.update(data, raw=True)
        elif sys.stderr.isatty():
            print("\r" + text, end="", file=sys.stderr, flush=True)


def replay(output: Sequence[str]) -> None:
    """Prints what the ranks printed, in rank order, each line with its rank.

    Of lines that were written again and again, as progress bars and bars under bars are, the last state is shown.
    """
    for rank, text in enumerate(output):
        for line in on_a_terminal(text.removesuffix("\n")) if text else ():
            print(f"[rank {rank}] {line}")


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
