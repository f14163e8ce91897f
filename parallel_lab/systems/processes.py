"""Server programs that end with the process that started them, whatever ends it, and that leave nothing behind.

Four things see to it:

- A context manager ends the program and waits for it.
- The kernel kills the program when the thread that started it is gone (`setpriv --pdeathsig`, Linux). So start servers
  in the main thread.
- The folder of a program's files is removed by a shell that waits for the end of its input, which comes with the block
  or with the process.
- A program that mounts a file system or needs an address of its own runs in a `Space`: network, mounts and processes of
  its own. The kernel ends all of it with the space's first process, the mounts and addresses as well.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

PATIENCE_S = 60.0  # until a server is up, on a busy machine
PARTS_S = 0.02  # between two looks
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
OWN = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")


# Ends with its input; a server that is being killed may write into the folder to the last.
REMOVE = 'cat > /dev/null; for try in 1 2 3 4 5 6 7 8 9; do rm -rf "$1" && break; sleep 0.1; done'


class ServerFailed(RuntimeError):
    """A server did not come up; the text has what it printed."""


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder for the files of servers, gone with the block, and with the process if that ends first."""
    folder = tempfile.mkdtemp(prefix="parallel-lab-")
    command = ["sh", "-c", REMOVE, "sh", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
        yield Path(folder)


class Server(subprocess.Popen):
    """A program that runs until it is ended; what it prints goes to a file."""

    def __init__(self, command: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log, self.name = log, str(command[0])
        guard = DIE_WITH_PARENT if shutil.which(DIE_WITH_PARENT[0]) else ()
        with open(log, "wb") as out:
            super().__init__(
                [*guard, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | dict(environment or {}),
                start_new_session=True,  # the terminal's Ctrl-C is for Python, which then ends the servers in order
            )

    def printed(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def end(self) -> None:
        """Kills it, since all that it holds is thrown away with it, and waits until it is gone."""
        self.kill()
        self.wait()


@contextlib.contextmanager
def serving(command: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server while the block runs."""
    server = Server(command, log, environment)
    try:
        yield server
    finally:
        server.end()


def wait_for(condition: Callable[[], object], servers: Sequence[Server], patience_s: float = PATIENCE_S) -> None:
    """Waits until a condition holds.

    Raises:
        ServerFailed: a server ended meanwhile, or the time is up.
    """
    ends_s = time.monotonic() + patience_s
    while not condition():
        ended = [f"{server.name} ended with {server.poll()}" for server in servers if server.poll() is not None]
        if ended or time.monotonic() > ends_s:
            printed = "\n".join(server.printed()[-2000:] for server in servers)
            raise ServerFailed(f"{', '.join(ended) or f'not up after {patience_s:.0f} s'}\n{printed}")
        time.sleep(PARTS_S)


class Space:
    """Mounts and processes of their own, and a network of their own where addresses are given; as root, on Linux.

    Files are the machine's, so paths mean the same inside and outside; a mount made inside is seen from outside below
    `outside(path)`.

    Attributes:
        first: the number of the space's first process, with which all others end.
    """

    def __init__(self, folder: Path, addresses: Sequence[str] = ()) -> None:
        self.folder, self.servers = folder, []
        self.kinds = ["--mount", "--pid", *(["--net"] if addresses else [])]
        steps = ["ip link set lo up", *(f"ip address add {address}/32 dev lo" for address in addresses)]
        line = " && ".join([*(steps if addresses else []), "echo up", "exec sleep infinity"])
        own = [*OWN, *(["--net"] if addresses else [])]
        self.holder = Server([*own, "sh", "-c", line], folder / "space.log")
        try:
            wait_for(lambda: "up" in self.holder.printed().split(), [self.holder])
        except BaseException:
            self.holder.end()
            raise
        self.first = int(children(self.holder.pid)[0])

    def enter(self, *command: object) -> list[str]:
        """The command, run inside."""
        return ["nsenter", "-t", str(self.first), *self.kinds, *map(str, command)]

    def serve(self, name: str, *command: object) -> Server:
        """Starts a server inside; it ends with the space."""
        self.servers.append(Server(self.enter(*command), self.folder / f"{name}.log"))
        return self.servers[-1]

    def call(self, *command: object) -> str:
        """Runs a command inside, and returns what it prints.

        Raises:
            ServerFailed: it did not end well.
        """
        done = subprocess.run(self.enter(*command), capture_output=True, text=True)
        if done.returncode:
            raise ServerFailed(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout

    def outside(self, path: Path) -> Path:
        """The path by which the machine sees `path` of the space, and what is mounted there."""
        return Path(f"/proc/{self.first}/root{path.resolve()}")

    def end(self) -> None:
        """Kills the first process; the kernel ends the rest, and each started program is waited for."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first, 9)
        for server in [*self.servers, self.holder]:
            server.wait()


@contextlib.contextmanager
def space(folder: Path, addresses: Sequence[str] = ()) -> Iterator[Space]:
    """A space while the block runs."""
    one = Space(folder, addresses)
    try:
        yield one
    finally:
        one.end()


def children(pid: int) -> list[str]:
    """The numbers of the processes that a process has started and that still run."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def without_space(fuse: bool = True) -> str:
    """Why no space can be made here, with programs in it that serve file systems where `fuse`; empty where it can."""
    absent = [name for name in ("setpriv", "unshare", "nsenter", "ip") if shutil.which(name) is None]
    if absent:
        return f"there is no {' and no '.join(absent)} here: apt-get install util-linux iproute2"
    if os.geteuid():
        return "only root makes namespaces and mounts in them"
    if fuse and not os.path.exists("/dev/fuse"):
        return "this machine has no /dev/fuse, so no program can serve a file system"
    done = subprocess.run([*OWN, "--net", "true"], capture_output=True, text=True)
    return f"unshare: {done.stderr.strip()}" if done.returncode else ""
