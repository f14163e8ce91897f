"""Opens JupyterLab at the learner's copy of the course, on the loopback and with a token."""

import contextlib
import errno
import json
import os
import socket
import sys
import uuid
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

from parallel_lab.course import saving

LOOPBACK = "127.0.0.1"
FIRST = "work/notebooks/00_start_here.ipynb"
MOST_OF_A_SOCKET = 100  # letters of its path; the kernel of Linux takes 107, that of macOS 103
SETTINGS = {
    # Nothing here asks the network for news or for a newer version, nor asks the reader whether it may.
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    # Else a link to a cell of a notebook that is not open yet ends at the top of it (JupyterLab 4.6).
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "defer"},
}

KERNELS = {"InteractiveShellApp": {"extensions": ["parallel_lab.course.after_restart"]}}


def trouble_with(port: str) -> str | None:
    """Why JupyterLab could not listen on `port`, in a line; None if it can."""
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        return f"{port!r} is no port: choose a number from 1024 to 65535"
    other = 8899 if port == "8888" else 8888
    advice = f"make lab PORT={other} or plab start --port {other}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is taken, perhaps by another JupyterLab: choose another, as in {advice}"
            return f"port {port} cannot be used ({error.strerror}): choose another, as in {advice}"
    return None


def settle() -> None:
    """Puts the settings above where JupyterLab and the kernels of this environment read them."""
    where = {"share/jupyter/lab/settings/overrides.json": SETTINGS, "etc/ipython/ipython_kernel_config.json": KERNELS}
    with contextlib.suppress(PermissionError):  # of an environment that others share; JupyterLab then asks
        for name, settings in where.items():
            file = Path(sys.prefix) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings, indent=2) + "\n")


def command(port: str, folder: Path, ip: str = LOOPBACK) -> list[str]:
    """What starts JupyterLab with `folder` as the root of what it shows."""
    line = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    line += [f"--ServerApp.ip={ip}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    line += [f"--LabApp.default_url=/lab/tree/{FIRST}", "--ServerApp.answer_yes=True"]
    line += ["--LabApp.extension_manager=readonly", "--ServerApp.log_level=WARN"]  # the address is shown all the same
    line += [f"--ServerApp.jpserver_extensions={saving.__name__}=True"]  # beside those that are installed
    line += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    # A login shell, as terminals have without this where nobody sits at one, may set PATH anew and lose `plab`.
    line.append(f"--ServerApp.terminado_settings=shell_command={os.environ.get('SHELL') or 'sh'}")
    if len(f"{jupyter_runtime_dir()}/kernel-{uuid.uuid4()}-ipc-1") <= MOST_OF_A_SOCKET:
        line.append("--KernelManager.transport=ipc")  # else kernels listen on TCP without encryption, and warn of it
    if sys.platform != "darwin" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        line.append("--no-browser")  # else a text browser might take the terminal
    if os.geteuid() == 0:
        line.append("--allow-root")  # usual in containers
    return line


def open_lab(port: str, folder: Path, ip: str) -> None:
    """Replaces this process by JupyterLab.

    Raises:
        OSError: the settings cannot be written.
    """
    settle()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # for `plab`
    os.chdir(folder)
    os.execv(sys.executable, command(port, folder, ip))
