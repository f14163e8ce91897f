"""The fork server: a process that has torch loaded, never computes, and forks a rank in milliseconds.

Forking the kernel itself deadlocks once it has used autograd (its threads do not survive a fork), and `spawn` imports
torch again in each rank. The standard library's fork server would run the learner's main module again in each rank
(`pytest` and scripts without a guard included), so this one is our own: it forks on request and knows nothing else.

It is started by `forkserver.py` with one end of a socket. A request is the folder of a launch with descriptors
attached: the launch's own socket, then two sockets per rank, for talk and for what it prints. The kernel closes the
launch's socket to end the ranks. When the kernel is gone all sockets close, so nothing outlives the notebook.
"""

import contextlib
import importlib
import os
import select
import shutil
import signal
import socket
import sys

from parallel_lab.runtime import wire
from parallel_lab.runtime.rank import main

# What torch would import, for seconds, in each rank: the first optimizer and the first DDP module load the compiler.
PRELOAD = (
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch.distributed.pipelining",
)
REQUEST_BYTES = 4096  # a folder's path
MAX_RANKS = 64  # descriptors travel in one message, which carries at most 253


class Launch:
    """The ranks of one launch that are alive, and the socket on which the kernel hears of their ends."""

    def __init__(self, control: socket.socket, folder: str, fds: list[int]) -> None:
        self.status, self.folder = socket.socket(fileno=fds[0]), folder
        self.alive: dict[int, int] = {}  # pid -> rank
        for rank, (talk, output) in enumerate(zip(fds[1::2], fds[2::2], strict=True)):
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                control.close()
                self.status.close()
                for later in fds[3 + 2 * rank :]:
                    os.close(later)
                main.main(rank, talk, output, folder)
            self.alive[pid] = rank
            os.close(talk)
            os.close(output)

    def collect(self, how: int = os.WNOHANG) -> None:
        """Reports the ranks that have ended: the exit code, or minus the number of the signal that ended it."""
        for pid in list(self.alive):
            ended, status = os.waitpid(pid, how)
            if ended:
                self._kill(pid)  # a rank leads a process group of its own; what it started ends with it
                with contextlib.suppress(OSError):  # the kernel may have stopped listening
                    wire.send(self.status, (self.alive[pid], os.waitstatus_to_exitcode(status)))
                del self.alive[pid]
        if not self.alive:
            self.status.close()

    def end(self) -> None:
        """Ends every rank, and removes the folder, which the kernel may no longer be there to do."""
        for pid in self.alive:
            self._kill(pid)
        self.collect(how=0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kill(self, pid: int) -> None:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)


def serve(control: socket.socket) -> None:
    """Answers requests until the kernel closes the socket."""
    launches: list[Launch] = []
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([control, wake_read, *(each.status for each in launches)], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
        for launch in launches:
            launch.end() if launch.status in ready else launch.collect()
        launches = [launch for launch in launches if launch.alive]
        if control in ready:
            folder, fds, _, _ = socket.recv_fds(control, REQUEST_BYTES, 1 + 2 * MAX_RANKS)
            if not folder:
                break
            launches.append(Launch(control, folder.rstrip(b"\0").decode(), fds))
    for launch in launches:
        launch.end()


if __name__ == "__main__":
    # Stop and Ctrl-C reach the whole process group of a kernel; they are the kernel's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    for module in PRELOAD:
        importlib.import_module(module)
    link.sendall(b"ready")
    serve(link)
    os._exit(0)  # there is nothing to finish, and unloading torch takes a second
