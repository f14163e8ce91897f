"""What all tests share: what is skipped and why, pictures without a screen, and that nothing stays behind."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import cloudpickle
import matplotlib
import psutil
import pytest
import torch

import parallel_lab

matplotlib.use("Agg")  # not through the environment, which the kernels that tests start would inherit


def pytest_configure():
    """Lets tests press Stop where pytest runs in the background, for which a shell has SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _reasons() -> dict[str, str | None]:
    """For each marker why its tests cannot run here; None where they can."""
    return {
        "gpu": None if torch.cuda.is_available() else "torch sees no CUDA GPU here",
        "browser": None if shutil.which("chromium") else "chromium is not on the path",
    }


def pytest_collection_modifyitems(items):
    """Skips what this machine cannot run, with the reason."""
    marked = [item for item in items if any(item.get_closest_marker(name) for name in ("gpu", "browser"))]
    reasons = _reasons() if marked else {}
    for item in marked:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _on_the_cpu(request, monkeypatch):
    """What does not ask for a GPU runs on the CPU, on a machine with GPUs as well."""
    if not request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="session")
def published_yaml():
    """The file of published figures beside the checkout; skips where it is not there."""
    file = Path(__file__).resolve().parents[2] / "shared" / "reference" / "published.yaml"
    if not file.exists():
        pytest.skip("published.yaml is not beside the checkout")
    return file


@pytest.fixture(scope="module")
def by_value(request):
    """Ranks get a test's functions as they get those of a cell: by value, and what these use.

    By name, each rank of each launch would import the test's file, and pytest with it: a quarter of a second.
    """
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


def _widgets_in(box):
    for child in getattr(box, "children", ()):
        yield child
        yield from _widgets_in(child)


@pytest.fixture(scope="session")
def by_kind():
    """The widgets of one class in a form, in the order in which they are read."""
    return lambda form, kind: [one for one in _widgets_in(form) if type(one).__name__ == kind]


def _started_with(folder: str) -> list[psutil.Process]:
    """Every other process whose folder for temporary files was set to `folder`, also when its parent is gone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("TMPDIR") == folder:
                found.append(process)
    return found


@pytest.fixture
def stopped(tmp_path):
    """`with stopped(3) as begun:` presses Stop in the block once three ranks have called `begun`, and expects that."""

    @contextlib.contextmanager
    def block(ranks):
        over = threading.Event()

        def press():
            while len(list(tmp_path.glob("begun-*"))) < ranks and not over.wait(0.01):
                pass
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            threading.Thread(target=press, daemon=True).start()
            try:
                yield lambda: (tmp_path / f"begun-{os.getpid()}").touch()
            finally:
                over.set()

    return block


@pytest.fixture(autouse=True, scope="session")
def _nothing_stays(tmp_path_factory):
    """Fails the session if a process or a launch's folder is left once the fork server has been ended.

    The folder for temporary files is the session's own, so that the launches of others on this machine do not count;
    its name in the environment tells our processes from theirs.
    """
    folder = str(tmp_path_factory.mktemp("t"))
    before, tempfile.tempdir = os.environ.get("TMPDIR"), folder
    os.environ["TMPDIR"] = folder
    yield
    parallel_lab.runtime.restart()
    _, alive = psutil.wait_procs(_started_with(folder), timeout=10)
    lines = [" ".join(process.cmdline()) for process in alive if process.is_running()]
    folders = [name for name in os.listdir(folder) if name.startswith("parallel-lab-")]
    tempfile.tempdir = None
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before
    assert not lines, f"processes were left behind: {lines}"
    assert not folders, f"folders were left behind: {folders}"
