"""The servers of chapter 17 on this machine, each a context manager: started, waited for, ended.

`missing(name)` says why one cannot run here, with the command that would change it. Redis and memcached listen on a
socket in their folder, rclone on a free port of the loopback, MooseFS and JuiceFS in a space of their own.
"""

import contextlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from parallel_lab.systems.processes import (
    Server,
    ServerFailed,
    Space,
    serving,
    space,
    temporary,
    wait_for,
    without_space,
)
from parallel_lab.systems.storage.moosefs import Cluster

PROGRAMS = {
    "moosefs": ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal", "mfsfileinfo"),
    "redis": ("redis-server",),
    "memcached": ("memcached",),
    "s3": ("rclone",),
    "juicefs": ("juicefs", "rclone", "redis-server"),
}
INSTALL = {
    "moosefs": "apt-get install moosefs-master moosefs-chunkserver moosefs-client fuse3 iproute2",
    "redis": "apt-get install redis-server",
    "memcached": "apt-get install memcached",
    "s3": "make storage",
    "juicefs": "make storage, and apt-get install redis-server fuse3 iproute2",
}


class Endpoint(NamedTuple):
    """Where an S3 server is, and with what to sign."""

    url: str
    access_key: str
    secret: str


def missing(name: str) -> str:
    """Why the server cannot run here; empty where it can.

    Args:
        name: `moosefs`, `redis`, `memcached`, `s3` or `juicefs`.
    """
    absent = [program for program in PROGRAMS[name] if program_path(program) is None]
    if absent:
        return f"{name}: there is no {', no '.join(absent)} here: {INSTALL[name]}"
    if name == "s3" and find_spec("boto3") is None:
        return f"s3: its client, boto3, is not installed: {INSTALL[name]}"
    reason = without_space() if name in ("moosefs", "juicefs") else ""
    return f"{name}: {reason}" if reason else ""


def program_path(program: str) -> str | None:
    """Where a program is: beside this Python, where `make storage` puts it, or on the path, or where Debian's are."""
    places = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(program, path=places)


@contextlib.contextmanager
def redis(memory_bytes: int | None = None) -> Iterator[Path]:
    """A Redis that keeps nothing on disk.

    Args:
        memory_bytes: the most that it holds, its own tables included; then it gives up what was used least recently, by
            a sample of five keys (its default).

    Yields:
        Its socket.
    """
    _here("redis")
    with temporary() as folder:
        command = [program_path("redis-server"), "--port", "0", "--unixsocket", folder / "redis", "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        if memory_bytes is not None:
            command += ["--maxmemory", memory_bytes, "--maxmemory-policy", "allkeys-lru"]
        with serving(command, folder / "redis.log") as server:
            wait_for(lambda: _listens(folder / "redis"), [server])
            yield folder / "redis"


@contextlib.contextmanager
def memcached(memory_mib: int = 64, object_mib: int = 8) -> Iterator[Path]:
    """A memcached; it yields its socket.

    Args:
        memory_mib: for items; then it gives up what was used least recently, class of sizes by class.
        object_mib: the largest item.
    """
    _here("memcached")
    with temporary() as folder:
        command = [program_path("memcached"), "-s", folder / "memcached", "-m", memory_mib, "-I", f"{object_mib}m"]
        command += ["-t", 2, *(["-u", "root"] if os.geteuid() == 0 else [])]
        with serving(command, folder / "memcached.log") as server:
            wait_for(lambda: _listens(folder / "memcached"), [server])
            yield folder / "memcached"


@contextlib.contextmanager
def s3() -> Iterator[Endpoint]:
    """An S3 server over a folder of this machine, with fresh keys."""
    _here("s3")
    with temporary() as folder, _rclone(folder) as (_, endpoint):
        yield endpoint


@contextlib.contextmanager
def moosefs(servers: int = 3) -> Iterator[Cluster]:
    """A MooseFS: a master, chunk servers, and a mount.

    It refuses the loopback's 127.0.0.1, so it runs in a space with addresses of its own.
    """
    _here("moosefs")
    with temporary() as folder, space(folder, Cluster.addresses(servers)) as inside:
        yield Cluster.start(inside, servers)


@contextlib.contextmanager
def juicefs(mounts: int = 2) -> Iterator[list[Path]]:
    """A JuiceFS: files cut into objects on an S3 server, their names in Redis; mounted several times, as on nodes.

    Each mount has a cache of its own. Yields the folder of each mount.
    """
    _here("juicefs")
    with contextlib.ExitStack() as stack:
        folder, names = stack.enter_context(temporary()), stack.enter_context(redis())
        server, endpoint = stack.enter_context(_rclone(folder))
        nodes = [stack.enter_context(_node(folder / f"node{k}")) for k in range(mounts)]
        where = f"unix://{names}?db=1"
        keys = ["--access-key", endpoint.access_key, "--secret-key", endpoint.secret]
        bucket = ["--storage", "s3", "--bucket", f"{endpoint.url}/juicefs", "--trash-days", 0]
        juice = program_path("juicefs")
        nodes[0].call(juice, "format", "--no-color", *bucket, *keys, where, "lab")
        yield [_mount(node, juice, where, server) for node in nodes]


def _mount(node: Space, juice: str | None, where: str, store: Server) -> Path:
    point = node.folder / "mount"
    point.mkdir()
    options = ["--cache-dir", node.folder / "cache", "--backup-meta", 0, "--no-usage-report", "--no-syslog"]
    options += ["--attr-cache", 0, "--entry-cache", 0, "--dir-entry-cache", 0, "--metrics", "127.0.0.1:0"]
    # Without the second process that else looks after the first, by asking for files of the mount: a process that is
    # killed while it waits for a file system of its own never ends.
    alone = ("env", "JFS_SUPERVISOR=1")
    mounted = node.serve("juicefs", *alone, juice, "mount", "--no-color", *options, where, point)
    wait_for(lambda: os.path.ismount(node.outside(point)), [mounted, store])
    return node.outside(point)


@contextlib.contextmanager
def _node(folder: Path) -> Iterator[Space]:
    """Mounts and processes of its own, on the machine's network."""
    folder.mkdir()
    with space(folder) as node:
        yield node


@contextlib.contextmanager
def _rclone(folder: Path) -> Iterator[tuple[Server, Endpoint]]:
    objects, keys = folder / "objects", (os.urandom(8).hex(), os.urandom(16).hex())
    objects.mkdir()
    command = [program_path("rclone"), "serve", "s3", objects, "--addr", "127.0.0.1:0", "--no-cleanup"]
    command += ["--config", folder / "rclone.conf"]
    # by the environment: the command line of a process is for all to read
    with serving(command, folder / "rclone.log", {"RCLONE_AUTH_KEY": f'"{keys[0]},{keys[1]}"'}) as server:
        wait_for(lambda: _address(server), [server])
        yield server, Endpoint(_address(server), *keys)


def _address(server: Server) -> str:
    found = re.search(r"\[(http://127\.0\.0\.1:\d+)/\]", server.printed())
    return found[1] if found else ""


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def _here(name: str) -> None:
    reason = missing(name)
    if reason:
        raise ServerFailed(reason)
