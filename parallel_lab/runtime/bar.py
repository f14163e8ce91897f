"""One progress bar under the cell for all ranks of a launch; a line that rewrites itself in a terminal."""

import sys

WIDTH = 30


class Bar:
    """Shows how far the slowest rank has come. Nothing is shown until a rank reports."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
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
