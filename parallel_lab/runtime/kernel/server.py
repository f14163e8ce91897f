"""The fork server: a process that has torch loaded, never computes, and forks a rank in milliseconds.

Forking the kernel itself deadlocks once it has used autograd (its threads do not survive a fork), and `spawn` imports
torch again in each rank. The standard library's fork server would run the learner's main module again in each rank
(`pytest` and scripts without a guard included), so this one is our own: it forks on request and knows nothing else.

It is started by `forkserver.py` with one end of a socket. A request is a line of JSON with file descriptors attached:
a pipe for what becomes of the ranks, then a socket and an output pipe a rank. When the kernel is gone the socket
closes; then the server ends every rank and itself, so that nothing outlives the notebook.
"""

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time

from parallel_lab.runtime.rank import main

# What torch would import, for seconds, in each rank: the first optimizer and the first DDP module load the compiler.
PRELOAD = (
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch.distributed.pipelining",
)
HEADER_BYTES = 8
MAX_RANKS = 64  # descriptors travel in one message, which carries at most 253


class Ranks:
    """The ranks of one launch: who is still alive, the pipe on which the kernel hears of them, and their folder."""

    def __init__(self, status: int, folder: str) -> None:
        self.status, self.folder = status, folder
        self.alive: dict[int, int] = {}  # pid -> rank

    def tell(self, **message) -> None:
        """Writes one line of JSON to the kernel, which may have stopped listening."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.status, json.dumps(message).encode() + b"\n")

    def exited(self, pid: int, code: int) -> None:
        """Reports the end of a rank: its exit code, or minus the number of the signal that ended it."""
        # A rank leads a process group of its own; what it started ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self.tell(rank=self.alive.pop(pid), code=code)
        if not self.alive:
            os.close(self.status)

    def kill(self) -> None:
        """Ends every rank and whatever it started."""
        for pid in self.alive:
            for end in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    end(pid, signal.SIGKILL)


def fork_ranks(ranks: Ranks, pipes: list[tuple[int, int]], control: socket.socket) -> None:
    """Forks one rank for each (socket, output pipe) of `pipes`."""
    for number, (talk, output) in enumerate(pipes):
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            os.close(ranks.status)
            for later in pipes[number + 1 :]:
                os.close(later[0])
                os.close(later[1])
            main.main(number, talk, output, ranks.folder)
        ranks.alive[pid] = number
        os.close(talk)
        os.close(output)
    ranks.tell(pids=list(ranks.alive))


def serve(control: socket.socket) -> None:
    """Answers requests until the kernel closes the socket."""
    launches: dict[int, Ranks] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([control, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            reap(launches)
        if control in ready and not answer(control, launches):
            break
    end_all(launches)


def reap(launches: dict[int, Ranks]) -> None:
    """Collects the ranks that have ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for ranks in launches.values():
            if pid in ranks.alive:
                ranks.exited(pid, os.waitstatus_to_exitcode(status))
        for name in [name for name, ranks in launches.items() if not ranks.alive]:
            del launches[name]


def answer(control: socket.socket, launches: dict[int, Ranks]) -> bool:
    """Carries out one request; False when the kernel is gone."""
    header, fds, _, _ = socket.recv_fds(control, HEADER_BYTES, 1 + 2 * MAX_RANKS)
    if len(header) < HEADER_BYTES:
        return False
    request = json.loads(control.recv(int(header), socket.MSG_WAITALL))
    if request["do"] == "fork":
        launches[request["id"]] = ranks = Ranks(fds[0], request["folder"])
        fork_ranks(ranks, list(zip(fds[1::2], fds[2::2], strict=True)), control)
    elif request["id"] in launches:
        launches[request["id"]].kill()
    return True


def end_all(launches: dict[int, Ranks]) -> None:
    """Ends every rank, waits until the last is gone, and removes the folders, which the kernel no longer can."""
    folders = [ranks.folder for ranks in launches.values()]
    for ranks in launches.values():
        ranks.kill()
    while launches:
        reap(launches)
        time.sleep(0.001)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # Stop and Ctrl-C reach the whole process group of a kernel; they are the kernel's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    for module in PRELOAD:
        importlib.import_module(module)
    link.sendall(b"ready")
    serve(link)
