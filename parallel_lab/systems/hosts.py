"""Two hosts on one machine: two spaces, each with a network of its own, joined by a cable of two virtual ends."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from parallel_lab.systems.processes import Space, space, temporary, without_space

CABLE = "cable"  # the name of its end, on each host


class Host(NamedTuple):
    """A space, and the address by which the other one reaches it."""

    space: Space
    address: str

    def inside(self, *command: object) -> list[str]:
        """The command, run on this host."""
        return self.space.enter(*command)


def missing() -> str:
    """Why no hosts can be made here; empty where they can."""
    return without_space(fuse=False)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nobody else; gone afterwards, with all that ran on them."""
    with temporary() as folder, ExitStack() as spaces:
        made = []
        for address in ("10.213.0.1", "10.213.0.2"):
            (folder / address).mkdir()
            made.append(Host(spaces.enter_context(space(folder / address, [address])), address))
        one, other = made
        # From here, since the second number is one of this machine's processes.
        ends = (CABLE, "netns", one.space.first, "type", "veth", "peer", "name", CABLE, "netns", other.space.first)
        subprocess.run(["ip", "link", "add", *map(str, ends)], check=True)
        for host in made:
            host.space.call("ip", "address", "add", f"{host.address}/24", "dev", CABLE)
            host.space.call("ip", "link", "set", CABLE, "up")
        yield one, other
