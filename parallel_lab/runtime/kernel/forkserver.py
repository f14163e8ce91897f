"""The kernel's handle on its fork server: started once, used by every launch, gone with the kernel."""

import atexit
import os
import socket
import subprocess
import sys
import threading

from parallel_lab.runtime.kernel.server import REQUEST_BYTES

_lock = threading.Lock()
_server: "ForkServer | None" = None


class ForkServer:
    """A running fork server. Use `get()`; there is one a process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": "1",
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # a fork of a process that asked CUDA itself cannot use it
        }
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "parallel_lab.runtime.kernel.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        if self.control.recv(5, socket.MSG_WAITALL) != b"ready":
            assert self.process.stderr
            raise RuntimeError("the fork server did not start:\n" + self.process.stderr.read().decode(errors="replace"))

    def usable(self) -> bool:
        """Whether it runs and belongs to this process (a fork of the kernel needs its own)."""
        return self.owner == os.getpid() and self.process.poll() is None

    def fork(self, folder: str, fds: list[int]) -> None:
        """Asks for one rank for each two descriptors after the first, the launch's own socket."""
        socket.send_fds(self.control, [os.fsencode(folder).ljust(REQUEST_BYTES, b"\0")], fds)

    def close(self) -> None:
        """Ends the server and every rank it still has."""
        self.control.close()
        assert self.process.stderr
        self.process.stderr.close()
        if self.owner == os.getpid():
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:  # it stands still
                self.process.kill()
                self.process.wait()


def get() -> ForkServer:
    """The fork server of this process, started if there is none or it has died."""
    global _server
    if os.name == "nt":
        raise RuntimeError("Windows has no fork server. Use WSL2 (`wsl --install`) and run JupyterLab inside it.")
    with _lock:
        if _server is not None and not _server.usable():
            _server.close()
            _server = None
        if _server is None:
            _server = ForkServer()
        return _server


def restart() -> None:
    """Ends the fork server; the next launch starts a new one. Needed after editing `parallel_lab` itself."""
    global _server
    with _lock:
        if _server is not None:
            _server.close()
        _server = None


atexit.register(restart)
