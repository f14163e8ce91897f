"""Two hosts on one machine: network namespaces, joined by a cable of two virtual ends."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Host(NamedTuple):
    """A namespace, and the address by which the other one reaches it."""

    name: str
    address: str

    def inside(self, *command: object) -> list[str]:
        """The command, run on this host."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]


def missing() -> str:
    """Why no hosts can be made here; empty where they can."""
    if os.geteuid():
        return "only root makes network namespaces"
    if shutil.which("ip") is None:
        return "there is no `ip` here: apt-get install iproute2"
    name = f"plab-try-{os.getpid()}"
    made = _ip("netns", "add", name)
    _ip("netns", "del", name)
    return f"ip netns add: {made.stderr.strip()}" if made.returncode else ""


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nobody else; gone afterwards, with all that ran on them."""
    number = os.getpid()
    hosts = (
        Host(f"plab-{number}-1", f"10.213.{number % 256}.1"),
        Host(f"plab-{number}-2", f"10.213.{number % 256}.2"),
    )
    ends = [f"pl{number}-{k}" for k in (1, 2)]
    try:
        for host in hosts:
            _must("netns", "add", host.name)
            _must("-n", host.name, "link", "set", "lo", "up")
        _must("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for host, end in zip(hosts, ends, strict=True):
            _must("link", "set", end, "netns", host.name)
            _must("-n", host.name, "address", "add", f"{host.address}/24", "dev", end)
            _must("-n", host.name, "link", "set", end, "up")
        yield hosts
    finally:
        for host in hosts:
            left = _ip("netns", "pids", host.name).stdout.split()
            subprocess.run(["kill", "-9", *left], stderr=subprocess.DEVNULL, check=False) if left else None
            _ip("netns", "del", host.name)
        _ip("link", "del", ends[0])  # where it was not yet handed to a host


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


def _must(*arguments: str) -> None:
    done = _ip(*arguments)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
