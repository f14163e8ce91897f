"""MooseFS, a replicated file system in the form of GFS: one master, chunk servers, clients that mount it.

The master (GFS: master, HDFS: NameNode) holds names and which chunk lies where, in memory. Chunks of at most 64 MiB lie
on chunk servers (HDFS: blocks on DataNodes), each as often as its *goal* says (replication factor). A client asks the
master where, and moves the bytes to and from the chunk servers itself. When a server is lost, the master has the copies
made anew on others.

Ghemawat, Gobioff, Leung, "The Google File System", SOSP 2003.
"""

import os
import re
import shutil
import signal
from pathlib import Path

from parallel_lab.systems.processes import Server, Space, children, wait_for

NETWORK = "10.213.1."
COPY = re.compile(rf"copy \d+: ({re.escape(NETWORK)}\d+):\d+ \(status:VALID\)")  # a line of mfsfileinfo
AS_ROOT = "WORKING_USER = root\nWORKING_GROUP = root\nDISABLE_OOM_KILLER = 0\nNICE_LEVEL = 0\n"
EMPTY = Path("/var/lib/mfs/metadata.mfs.empty")  # Debian's: a file system without a file


class Cluster:
    """A running MooseFS.

    Attributes:
        folder: its mount.
        servers: the chunk servers that run, by address.
    """

    def __init__(self, inside: Space, servers: dict[str, Server], folder: Path) -> None:
        self.inside, self.servers, self.folder = inside, servers, folder

    @staticmethod
    def addresses(servers: int) -> list[str]:
        """The master's address, then one for each chunk server."""
        return [f"{NETWORK}{k}" for k in range(1, servers + 2)]

    @classmethod
    def start(cls, inside: Space, servers: int) -> "Cluster":
        """Starts a master, chunk servers and a mount in a space that has their addresses."""
        master, *others = cls.addresses(servers)
        running = [_master(inside, master)]
        wait_for(lambda: "initialized properly" in running[0].printed(), running)
        chunk = {address: _chunk_server(inside, address, master) for address in others}
        running += chunk.values()
        point = inside.folder / "mount"
        point.mkdir()
        options = "mfsallowoomkiller,mfsnice=0"
        running.append(inside.serve("mount", "mfsmount", "-f", "-H", master, "-o", options, point))
        folder = inside.outside(point)
        wait_for(lambda: os.path.ismount(folder), running)
        cluster = cls(inside, chunk, folder)
        wait_for(lambda: cluster._takes_files(servers), running)
        return cluster

    def set_goal(self, path: Path, copies: int) -> None:
        """How often each chunk of a file, or of what is below a folder, shall lie on some server."""
        self.inside.call("mfssetgoal", "-r", copies, self._own(path))

    def copies(self, path: Path) -> list[list[str]]:
        """For each chunk of a file the addresses of the servers that hold it whole, sorted."""
        chunks = self.inside.call("mfsfileinfo", self._own(path)).split("\tchunk ")[1:]
        return [sorted(COPY.findall(chunk)) for chunk in chunks]

    def kill(self, address: str) -> None:
        """Kills a chunk server; its copies are lost."""
        server = self.servers.pop(address)
        for child in children(server.pid):
            os.kill(int(child), signal.SIGKILL)
        server.wait()

    def _own(self, path: Path) -> Path:
        """The path inside the space."""
        return self.inside.folder.resolve() / "mount" / path.relative_to(self.folder)

    def _takes_files(self, servers: int) -> bool:
        """Whether the master knows all chunk servers: a file lies on every one."""
        probe = self.folder / "probe"
        try:
            if not probe.exists():
                probe.touch()
                self.set_goal(probe, servers)
            probe.write_bytes(b"here")
            known = self.copies(probe)
            probe.unlink()
        except OSError:
            return False
        return len(known) == 1 and len(known[0]) == servers


def _master(inside: Space, address: str) -> Server:
    folder = inside.folder / "master"
    folder.mkdir()
    shutil.copy(EMPTY, folder / "metadata.mfs")
    (folder / "exports.cfg").write_text("* / rw,alldirs,admin,maproot=0:0\n* . rw\n")
    text = f"{AS_ROOT}DATA_PATH = {folder}\nEXPORTS_FILENAME = {folder}/exports.cfg\n"
    # lost copies are made anew from the start, and not only after a minute
    text += "REPLICATIONS_DELAY_INIT = 0\n"
    text += "".join(f"MATO{who}_LISTEN_HOST = {address}\n" for who in ("ML", "CS", "CL"))
    (folder / "master.cfg").write_text(text)
    return inside.serve("master", "mfsmaster", "-f", "-c", folder / "master.cfg", "start")


def _chunk_server(inside: Space, address: str, master: str) -> Server:
    folder = inside.folder / address
    (folder / "chunks").mkdir(parents=True)
    (folder / "disks.cfg").write_text(f"{folder}/chunks\n")
    text = f"{AS_ROOT}DATA_PATH = {folder}\nHDD_CONF_FILENAME = {folder}/disks.cfg\nHDD_LEAVE_SPACE_DEFAULT = 64MiB\n"
    text += f"MASTER_HOST = {master}\nMASTER_RECONNECTION_DELAY = 1\n"
    text += f"BIND_HOST = {address}\nCSSERV_LISTEN_HOST = {address}\n"
    (folder / "server.cfg").write_text(text)
    return inside.serve(address, "mfschunkserver", "-f", "-c", folder / "server.cfg", "start")
