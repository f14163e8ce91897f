"""Who may join the rendezvous of a job: a stranger that needs nothing, and the doors that stop it.

Ranks find each other at a `TCPStore`: rank 0 serves it, and each rank writes its address there and reads the others'.
The store asks nobody who he is. PyTorch's own SECURITY.md says so ("Using distributed features", read in 2026): none of
c10d, RPC and TCPStore has an authorization protocol, messages go unencrypted, connections are accepted from anywhere.
"From anywhere" is literal: `TCPStore("127.0.0.1", ...)` listens on all addresses of the machine, since the name is only
what clients connect to. So who reaches the port can

- list, read and overwrite every key (`stranger`), among them the addresses under which gloo's ranks connect;
- take a rank's seat before the rank comes, and be sent the weights (`take_seat`).

Three doors, each with what it leaves open:

1. The store listens on the loopback alone (`closed_store`), and a proxy stands on the network's address. Processes on
   the same machine still reach it; there it takes a network namespace for each job.
2. The proxy asks for a token (a challenge and a code of it, so that the token does not travel). Who stands on the cable
   still reads what follows, and changes it; and a token says that somebody belongs to the job, and not who.
3. The proxy asks for a certificate (mutual TLS): it is encrypted, a change on the way ends the connection, and the
   certificate has a name. What remains is who has a right certificate: a rank that is taken over, or an authority that
   signs too much. Certificates end by date; what was stolen stays good until then.

None of them covers what comes after: gloo's and NCCL's own connections go from rank to rank, and pass no door
(`wire.py`).
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist
import trustme
from torch import Tensor

from parallel_lab import compat
from parallel_lab.systems.security.proxy import (
    LOOPBACK,
    Proxy,
    asks_certificate,
    asks_token,
    has_certificate,
    has_token,
)

STORE = "store.job-7.test"  # the name in the certificate of the store's proxy
PATIENCE = timedelta(seconds=20)
OVERWRITTEN = "by a stranger"
HEADER_BYTES = 5  # of a TLS record: kind, version, length


def open_store() -> compat.TCPStore:
    """The store of a job as rank 0 makes it; it listens on every address of this machine."""
    return compat.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)


def closed_store() -> compat.TCPStore:
    """The same, on the loopback alone: it is given a socket that listens already."""
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    return compat.TCPStore(
        LOOPBACK,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=PATIENCE,
        master_listen_fd=listener.detach(),  # the store closes it
    )


def listens_at(port: int) -> str:
    """The address at which a process of this machine listens at `port`, as the kernel's table has it (Linux)."""
    for table, family, width in (("tcp", socket.AF_INET, 4), ("tcp6", socket.AF_INET6, 16)):
        with open(f"/proc/net/{table}") as rows:
            for row in rows:
                place, state = row.split()[1], row.split()[3]
                if state == "0A" and int(place.split(":")[1], 16) == port:
                    raw = bytes.fromhex(place.split(":")[0])
                    words = [raw[at : at + 4][::-1] for at in range(0, width, 4)]  # each word of the machine's order
                    return socket.inet_ntop(family, b"".join(words))
    return ""


@dataclass
class Seen:
    """What a stranger came to.

    Attributes:
        joined: Whether the store let it in.
        values: The keys and values that it read.
        overwrote: The keys that it wrote anew.
    """

    joined: bool = False
    values: dict[str, bytes] = field(default_factory=dict)
    overwrote: list[str] = field(default_factory=list)


def client(port: int, patience_s: float = 20.0) -> compat.TCPStore:
    """The store as a rank joins it: it takes an address and a port, and nothing else."""
    return compat.TCPStore(LOOPBACK, port, is_master=False, timeout=timedelta(seconds=patience_s))


def stranger(port: int, *, keys: list[str] | None = None, patience_s: float = 0.5) -> Seen:
    """Joins with nothing but an address, reads every key and overwrites it.

    `keys` are those that it guesses, for a torch whose store does not list them.
    """
    seen = Seen()
    with contextlib.suppress(RuntimeError), quiet():  # refused connections are torch's DistNetworkError
        store = client(port, patience_s)
        names = keys if keys is not None else compat.keys_of(store)
        seen.values = {name: store.get(name) for name in names}
        for name in names:
            store.set(name, OVERWRITTEN)
            seen.overwrote.append(name)
        seen.joined = True
    return seen


def take_seat(store: compat.Store, rank: int, ranks: int) -> Any:
    """A group of gloo on this store, for whoever says that he is `rank`."""
    return dist.ProcessGroupGloo(store, rank, ranks, compat.gloo_options(LOOPBACK, PATIENCE))


def given_to(group: Any, tensor: Tensor) -> Tensor:
    """What member 0 of the group broadcasts, as weights at the start of a job are."""
    options = dist.BroadcastOptions()
    options.rootRank = 0
    group.broadcast([tensor], options).wait()
    return tensor


@contextlib.contextmanager
def token_door(store_port: int, token: bytes) -> Iterator[Proxy]:
    """The store's proxy that asks for the token."""
    with Proxy(store_port, inward=asks_token(token)) as door:
        yield door


@contextlib.contextmanager
def with_token(door_port: int, token: bytes) -> Iterator[int]:
    """The port at which a rank that has the token finds the store."""
    with Proxy(door_port, outward=has_token(token)) as own:
        yield own.port


@contextlib.contextmanager
def certificate_door(store_port: int, authority: trustme.CA, names: str = "*.job-7.test") -> Iterator[Proxy]:
    """The store's proxy that asks for a certificate of this authority, with a name of this job."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED  # mutual: without it TLS says who the server is, and lets anybody in
    authority.configure_trust(context)
    authority.issue_cert(STORE).configure_cert(context)
    with Proxy(store_port, inward=asks_certificate(context, names)) as door:
        yield door


@contextlib.contextmanager
def with_certificate(
    door_port: int, authority: trustme.CA, name: str | None, trusts: trustme.CA | None = None
) -> Iterator[int]:
    """The port at which a rank finds the store, that has a certificate of `name` from this authority, or none.

    It takes the store's certificate from the authority that it `trusts`, by default its own: who wants to come in
    chooses that himself.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    (trusts or authority).configure_trust(context)
    if name is not None:
        authority.issue_cert(name).configure_cert(context)
    with Proxy(door_port, outward=has_certificate(context, STORE)) as own:
        yield own.port


@dataclass
class Meddler:
    """Who stands on the cable, has read the protocol, and changes what passes.

    Attributes:
        what: Bytes that it looks for.
        by: What it puts in their place.
        blind: Whether it changes a bit of each piece in any case, as who cannot read can; behind a record's header.
        heard: Whether it has found what it looked for.
    """

    what: bytes
    by: bytes
    blind: bool = False
    heard: bool = False

    def __call__(self, data: bytes) -> bytes:
        """What it hands on."""
        self.heard |= self.what in data
        data = data.replace(self.what, self.by)
        place = min(HEADER_BYTES, len(data) - 1)
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] if self.blind else data


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What torch's C++ prints of a refused connection, with its stack, goes nowhere."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
