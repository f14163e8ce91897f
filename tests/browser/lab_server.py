"""A JupyterLab server for one test: on the loopback, with a token, on a port that the system chooses.

It reads no settings of the machine's user and writes all its files into a folder that it is given.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import nbformat
import psutil

from parallel_lab.course import saving

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60.0
END_S = 15.0

SETTINGS = {
    # No questions and no news from the network.
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    # Every cell stays on the page, whether it is in view or not.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}


class NoServer(RuntimeError):
    """JupyterLab ended before it answered, or did not answer in time; the message carries the end of its log."""


def copy_course(notebook: str, root: Path) -> Path:
    """Copies `notebook` (a path in the repository) and the exercises to `root`, where a learner may write.

    The notebook loses its outputs, so that each output seen there is one of this run. Returns the copy of the notebook.
    """
    shutil.copytree(REPOSITORY / "exercises", root / "exercises", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    content = nbformat.read(REPOSITORY / notebook, as_version=4)
    content.metadata.pop("widgets", None)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    (root / notebook).parent.mkdir(parents=True)
    nbformat.write(content, root / notebook)
    return root / notebook


@contextmanager
def serve(root: Path, scratch: Path, opened: str, theme: str = "JupyterLab Light") -> Iterator[str]:
    """A running JupyterLab with `root` as its root folder; yields the address that opens its notebook `opened`.

    When the block ends, however it ends, so do the server, its kernels, and everything that those started. Raises
    NoServer where it cannot start, and RuntimeError where a process had to be killed after `END_S` seconds.
    """
    runtime = scratch / "runtime"
    _write_settings(scratch / "settings", theme)
    with (scratch / "server.log").open("wb") as log:
        process = subprocess.Popen(
            _command(root, scratch / "settings"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(scratch, runtime) | {"PARALLEL_LAB_PROGRESS": str(root / "progress.json")},
            cwd=root,
        )
        try:
            url, token = _await(process, runtime / f"jpserver-{process.pid}.json", scratch / "server.log")
            yield f"{url}lab/tree/{opened}?token={token}"
        finally:
            killed = _end(process)
    if killed:
        raise RuntimeError(f"still there {END_S:.0f} s after JupyterLab was told to end: {', '.join(killed)}")


def until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Returns once `condition()` holds; raises TimeoutError, naming `what`, after `timeout_s` seconds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.05)


def _write_settings(folder: Path, theme: str) -> None:
    folder.mkdir(parents=True)
    settings = SETTINGS | {"@jupyterlab/apputils-extension:themes": {"theme": theme}}
    (folder / "overrides.json").write_text(json.dumps(settings))


def _command(root: Path, settings: Path) -> list[str]:
    line = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.root_dir={root}"]
    line += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--LabApp.app_settings_dir={settings}"]
    line += [f"--ServerApp.jpserver_extensions={saving.__name__}=True"]
    line += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    return [*line, "--allow-root"] if os.geteuid() == 0 else line


def _environment(scratch: Path, runtime: Path) -> dict[str, str]:
    # What the user of this machine has set for Jupyter or for the course is not what is tested.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PARALLEL_LAB"))}
    folders = {"CONFIG_DIR": scratch / "config", "DATA_DIR": scratch / "data", "RUNTIME_DIR": runtime}
    jupyter = {f"JUPYTER_{name}": str(folder) for name, folder in folders.items()}
    return kept | jupyter | {"IPYTHONDIR": str(scratch / "ipython"), "JUPYTER_PLATFORM_DIRS": "1"}


def _await(process: subprocess.Popen, card: Path, log: Path) -> tuple[str, str]:
    """The url and the token that the server wrote on its `card`, once it answers there."""

    def answers() -> bool:
        if process.poll() is not None:
            raise NoServer(f"JupyterLab ended with code {process.returncode}:\n{_tail(log)}")
        try:
            seen = json.loads(card.read_text())
            with urlopen(f"{seen['url']}api/status?token={seen['token']}", timeout=5):
                return True
        except (OSError, ValueError):  # not written yet, half written, or not listening yet
            return False

    try:
        until(answers, START_S, "JupyterLab answers")
    except TimeoutError as late:
        raise NoServer(f"{late}:\n{_tail(log)}") from late
    seen = json.loads(card.read_text())
    return seen["url"], seen["token"]


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _end(process: subprocess.Popen) -> list[str]:
    """Ends the server and all that it started; returns what had to be killed."""
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(tree, timeout=END_S)
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=END_S)
    return [f"process {one.pid}" for one in alive]
