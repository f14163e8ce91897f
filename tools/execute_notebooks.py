"""Runs notebooks and stores what they show, so that the same notebook always gives the same file.

Run by `make notebooks`, or for some only: .venv/bin/python tools/execute_notebooks.py notebooks/02_collectives.ipynb

Each runs in its own folder, as for a learner who has solved nothing yet. Cell ids stay; times of execution, the version
of Python, and the state of widgets (which has random names) are left out. A notebook that fails is left as it was.
"""

import argparse
import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from parallel_lab.course.generate import text_of
from parallel_lab.course.progress import VARIABLE
from parallel_lab.course.under_way import QUIET

CELL_TIMEOUT_S = 120
PROGRESS = "progress.json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}
WIDGET = "application/vnd.jupyter.widget-view+json"
COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Failed(Exception):
    """A notebook did not run; the message names it, the cell, and what the cell raised."""


class Client(NotebookClient):
    """Runs one notebook, knows which cell runs, and ends the kernel on Ctrl-C."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cell: NotebookNode | None = None
        self.done = 0
        self.stopped = False
        super().__init__(
            nbformat.reads(path.read_text(encoding="utf-8"), as_version=4),
            timeout=CELL_TIMEOUT_S,
            kernel_name=KERNEL["name"],
            resources={"metadata": {"path": str(path.parent)}},
            store_widget_state=False,
            coalesce_streams=True,
            record_timing=False,
            on_notebook_start=self.take_interrupts,
            on_cell_start=self.begin,
            extra_arguments=["--log-level=CRITICAL"],
        )

    def take_interrupts(self, notebook: NotebookNode) -> None:
        """Called once the kernel runs: from now on Ctrl-C cancels the run, which nbclient reports as a dead kernel."""
        task = asyncio.current_task()
        assert task

        def stop() -> None:
            self.stopped = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)

    def begin(self, cell: NotebookNode, cell_index: int) -> None:
        """Called before each cell: notes which one it is, and shows it."""
        if cell.cell_type == "code":
            self.cell, self.done = cell, self.done + 1
            if sys.stdout.isatty():
                print(f"\r\033[K{self.where}", end="", flush=True)

    @property
    def where(self) -> str:
        """The notebook and the cell that ran last."""
        total = sum(cell.cell_type == "code" for cell in self.nb.cells)
        return f"{self.path}: cell {self.done} of {total} ({self.cell.id if self.cell else 'none'})"


def run(path: Path) -> NotebookNode:
    """The notebook with what it shows.

    Raises:
        Failed: a cell has no id, raises, takes too long, or ends the kernel.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    client = Client(path)
    if nameless := [place for place, cell in enumerate(client.nb.cells) if not cell.get("id")]:
        raise Failed(f"{path}: cell {nameless[0]} has no id")
    try:
        with TemporaryDirectory() as folder:
            client.execute(env=os.environ | {VARIABLE: f"{folder}/{PROGRESS}", QUIET: "1"})
            show_progress_at_home(client.nb, folder)
    except CellExecutionError as error:
        raise Failed(f"{client.where}: {error.ename}: {error.evalue}\n{COLORS.sub('', error.traceback)}") from None
    except CellTimeoutError:
        raise Failed(f"{client.where}: still running after {CELL_TIMEOUT_S} s") from None
    except (DeadKernelError, asyncio.CancelledError):
        if client.stopped:
            raise KeyboardInterrupt from None
        raise Failed(f"{client.where}: the kernel died") from None
    return client.nb


def show_progress_at_home(notebook: NotebookNode, folder: str) -> None:
    """Names the file of the learner's progress in the outputs where a learner has it, and not in `folder`."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind, shown in output.get("data", {}).items():
                if isinstance(shown, str):
                    output.data[kind] = shown.replace(f"{folder}/{PROGRESS}", f"../{PROGRESS}")


def clean(notebook: NotebookNode) -> NotebookNode:
    """Takes out what differs from run to run and from machine to machine."""
    notebook.metadata = NotebookNode(kernelspec=dict(KERNEL), language_info=dict(LANGUAGE))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            # A view names its widget by a random id and shows nothing without its kernel; what stands beside it does.
            if WIDGET in data and len(data) > 1:
                del data[WIDGET]
    return notebook


def store(path: Path, notebook: NotebookNode) -> None:
    """Writes the notebook, whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text_of(notebook), encoding="utf-8")
    partial.replace(path)


def execute(paths: list[Path]) -> list[Failed]:
    """Runs and stores each notebook; returns what failed."""
    failed = []
    for number, path in enumerate(paths, 1):
        began_s = time.monotonic()
        label = f"[{number}/{len(paths)}] {path}"
        try:
            store(path, clean(run(path)))
            outcome = "done"
        except Failed as error:
            failed.append(error)
            outcome = "FAILED"
        start = "\r\033[K" if sys.stdout.isatty() else ""
        print(f"{start}{label}: {outcome} in {time.monotonic() - began_s:.1f} s", flush=True)
    return failed


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run notebooks and store what they show.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    paths = [path for path in parser.parse_args().notebooks if path.suffix == ".ipynb"]
    if missing := [str(path) for path in paths if not path.is_file()]:
        print(f"no notebook there: {', '.join(missing)}", file=sys.stderr)
        return 1
    try:
        failed = execute(paths)
    except KeyboardInterrupt:
        print("\nstopped; the notebook that was running is as it was", file=sys.stderr)
        return 130
    for error in failed:
        print(f"\n{error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
