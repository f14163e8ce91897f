"""What a listener on the cable between two hosts reads of an all-reduce, and WireGuard below it.

gloo and NCCL send tensors as they are. gloo's source has a transport over TLS, and PyTorch's wheel is built without it
(`gloo_has_tls`: torch 2.13 says "unsupported gloo device"). NCCL does not encrypt by default, and leaves a secure
network to the user (user guide, "Setup"). The guide of NCCL 2.32.3 adds a build with OpenSSL that encrypts what NCCL
itself sends over TCP sockets; other transports stay outside, and the guide of 2.30.7 has no such build. A TLS tunnel
serves one known port, and ranks open ports as they come. So encryption belongs below: WireGuard or IPsec between hosts,
or the network cards' own (IPsec and MACsec in hardware) where the traffic is RDMA, which no tunnel of the kernel sees.

Here: two hosts are two network namespaces with a cable between them (`hosts.py`), and a rank runs on each. They
all-reduce numbers whose bytes are a word, once over the cable's addresses and once over those of WireGuard, while a
listener (`listener.py`) at one end of the cable takes every packet. The WireGuard is wireguard-go, a program in user
space, since not every machine's kernel has its own; what it costs says nothing about a kernel's or a card's.

A packet of WireGuard is 60 bytes longer than what it carries over IPv4 (20 IP, 8 UDP, 16 header, 16 code).

What this does not stop: the listener still sees who talks to whom, when, and how much, so the steps of a training show.
Whoever is root on a host reads the tensors before they are encrypted. Ranks on one host, and NVLink within it, send in
clear. And who has a host's private key is that host.
"""

import base64
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import parallel_lab
from parallel_lab.systems import hosts
from parallel_lab.systems.processes import ServerFailed, children, wait_for
from parallel_lab.systems.security import listener
from parallel_lab.systems.security.wire_rank import WORD

HEADERS_BYTES = 60
MTU_BYTES = 1420  # of what travels inside, as wg-quick chooses it for a cable of 1500
LISTEN_PORT = 51820
TRANSPORT = "GLOO_DEVICE_TRANSPORT"
LISTENER = (sys.executable, "-I", "-S", listener.__file__)  # of the standard library alone
SOURCE = str(Path(parallel_lab.__file__).parents[1])
RANK = (sys.executable, "-m", "parallel_lab.systems.security.wire_rank")

# Sockets of wireguard-go stand below /run: each host mounts its own there. The private key comes in a file,
# since arguments stand in the table of processes for all to read.
UP = """
mount -t tmpfs tmpfs "$(readlink -f /var/run)" && mkdir /var/run/wireguard || exit 1
WG_PROCESS_FOREGROUND=1 wireguard-go -f wg0 &
until [ -S /var/run/wireguard/wg0.sock ]; do kill -0 $! || exit 1; sleep 0.02; done
wg set wg0 listen-port {port} private-key {key} peer {peer} endpoint {endpoint}:{port} allowed-ips {inside}/32 &&
ip address add {own}/24 dev wg0 && ip link set wg0 mtu {mtu} up && echo up && wait
"""


@dataclass
class Heard:
    """What went over one kind of address.

    Attributes:
        packets: How many the listener took.
        in_clear: How many of them had the word.
        bytes: Of all of them, with their headers.
        dropped: How many the kernel could not hand to the listener, of both kinds together.
        times_s: How long each all-reduce took on rank 0.
    """

    packets: int = 0
    in_clear: int = 0
    bytes: int = 0
    dropped: int = 0
    times_s: list[float] = field(default_factory=list)


def missing() -> str:
    """Why no two hosts can be listened to here; empty where they can."""
    return hosts.missing()


def missing_wireguard() -> str:
    """Why there is no WireGuard here; empty where there is."""
    absent = [name for name in ("wireguard-go", "wg") if shutil.which(name) is None]
    if absent:
        return f"there is no {' and no '.join(absent)} here: apt-get install wireguard-go wireguard-tools"
    return "" if Path("/dev/net/tun").exists() else "this machine has no /dev/net/tun, so no program makes a tunnel"


def gloo_has_tls() -> bool:
    """Whether this torch was built with gloo's transport over TLS; it is then told by variables which keys to take."""
    kept = os.environ.get(TRANSPORT)
    os.environ[TRANSPORT] = "TCP_TLS"
    try:
        dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")
    except RuntimeError as error:  # with the transport, of keys that are not there
        return "unsupported gloo device" not in str(error)
    finally:
        os.environ.pop(TRANSPORT) if kept is None else os.environ.update({TRANSPORT: kept})
    return True


def listen(tensor_bytes: int = 2**20, times: int = 2) -> dict[str, Heard]:
    """By `cable` and, where it is there, `WireGuard`: what a listener hears while two hosts all-reduce."""
    found = os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")])
    program = ("env", "OMP_NUM_THREADS=1", f"PYTHONPATH={found}", *RANK)
    with hosts.two_hosts() as both:
        paths = {"cable": [host.address for host in both]}
        if not missing_wireguard():
            paths["WireGuard"] = tunnel(both)
        ear = both[1].space.serve("ear", *LISTENER, hosts.CABLE, WORD.decode())
        wait_for(lambda: "listening" in ear.printed(), [ear])
        ranks = []
        for place, host in enumerate(both):
            own = [addresses[place] for addresses in paths.values()]
            meeting = both[0].space.folder
            ranks.append(host.space.serve("rank", *program, meeting, place, tensor_bytes, times, *own))
        wait_for(lambda: all(rank.poll() == 0 for rank in ranks) or any(rank.poll() for rank in ranks), [ear])
        if failed := [rank.printed() for rank in ranks if rank.poll() != 0]:
            raise ServerFailed("\n".join(failed))
        os.kill(int(children(ear.pid)[0]), signal.SIGTERM)  # the program, not the one that brought it there
        ear.wait()
        return _heard(ear.printed(), ranks[0].printed(), list(paths))


def _heard(ear: str, rank: str, paths: list[str]) -> dict[str, Heard]:
    counted, times = json.loads(ear.splitlines()[-1]), json.loads(rank.splitlines()[-1])
    kinds = {"cable": "tcp", "WireGuard": "udp"}
    return {
        name: Heard(**counted[kinds[name]], dropped=counted["dropped"], times_s=times[place])
        for place, name in enumerate(paths)
    }


def tunnel(both: tuple[hosts.Host, hosts.Host]) -> list[str]:
    """WireGuard between two hosts, which ends with them; their addresses inside of it."""
    keys = [X25519PrivateKey.generate() for _ in both]
    inside = [f"10.214.0.{place}" for place in (1, 2)]
    ups = []
    for place, host in enumerate(both):
        file = host.space.folder / "key"
        file.touch(mode=0o600)
        file.write_text(_text(keys[place].private_bytes_raw()))
        script = UP.format(
            port=LISTEN_PORT,
            key=file,
            peer=_text(keys[1 - place].public_key().public_bytes_raw()),
            endpoint=both[1 - place].address,
            inside=inside[1 - place],
            own=inside[place],
            mtu=MTU_BYTES,
        )
        ups.append(host.space.serve("wireguard", "sh", "-c", script))
    wait_for(lambda: all("up" in up.printed().split() for up in ups), ups)
    return inside


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def overhead(mtu_bytes: int = MTU_BYTES) -> float:
    """Bytes on the cable over bytes inside the tunnel, for full packets over IPv4."""
    return (mtu_bytes + HEADERS_BYTES) / mtu_bytes
