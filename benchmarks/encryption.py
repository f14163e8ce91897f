"""What it costs to authenticate, to encrypt, and to do so below a whole all-reduce; three tables.

    python benchmarks/encryption.py [--mib 16]

*Bytes*: one thread works on a message of so many MiB; median of 7. SHA-256 and CRC32 are the peers: they need no key
and stop no attacker. `Channel` is the package's sealed message, HMAC-SHA256 and its copies; opening costs the same
code. Its limit is 1.5 times the plain SHA-256 of the same bytes.

*Doors*: as many MiB through two proxies on the loopback, as the rendezvous has them, all in one process, so that the
ratio to the plain proxies counts and not the rate. *Joining* is a connection with its handshakes.

*The wire*: two network namespaces all-reduce as many MiB over a virtual cable, once in clear and once through
wireguard-go, which encrypts in user space: on few cores that is far more than a kernel or a network card takes. The
limits: the listener finds the word in packets of the cable, and in none of WireGuard's. This part needs root.
"""

import argparse
import contextlib
import hashlib
import os
import socket
import statistics
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from parallel_lab.systems.security import Channel, certificate_door, rendezvous, token_door, wire
from parallel_lab.systems.security.proxy import LOOPBACK, Proxy
from parallel_lab.trace.units import format_bytes, format_seconds, table

TURNS, MOST, MIB = 7, 1.5, 2**20
TOKEN = b"a token"


def took(action: Callable[[], object], turns: int = TURNS) -> float:
    """The median of some turns, in seconds."""
    times = []
    for _ in range(turns):
        began_s = time.perf_counter()
        action()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def on_bytes(size: int) -> dict[str, float]:
    """Seconds of each way to protect a message."""
    message, nonce, key = os.urandom(size), os.urandom(12), os.urandom(32)
    gcm, chacha = AESGCM(key), ChaCha20Poly1305(key)
    ways: dict[str, Callable[[], object]] = {
        "CRC32": lambda: zlib.crc32(message),
        "SHA-256": lambda: hashlib.sha256(message).digest(),
        "Channel.seal (HMAC-SHA256)": lambda: Channel(key, 0, 1).seal(message),
        "Channel.open": lambda: Channel(key, 1, 0).open(sealed),
        # one nonce for all: for a clock, and never in earnest
        "AES-256-GCM": lambda: gcm.encrypt(nonce, message, None),
        "ChaCha20-Poly1305": lambda: chacha.encrypt(nonce, message, None),
    }
    sealed = Channel(key, 0, 1).seal(message)
    return {name: took(way) for name, way in ways.items()}


@contextlib.contextmanager
def sink(size: int) -> Iterator[int]:
    """A server that reads `size` bytes of each connection and then answers with one byte; yields its port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    left = size
                    while left and (data := connection.recv(2**16)):
                        left -= len(data)
                    connection.sendall(b"x")

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def doors(kind: str, port: int) -> Iterator[int]:
    """The port of a rank's own proxy, behind which is a door before `port`."""
    with contextlib.ExitStack() as ends:
        if kind == "plain":
            door = ends.enter_context(Proxy(port))
            yield ends.enter_context(Proxy(door.port)).port
        if kind == "token":
            door = ends.enter_context(token_door(port, TOKEN))
            yield ends.enter_context(rendezvous.with_token(door.port, TOKEN))
        if kind == "mutual TLS":
            authority = trustme.CA()
            door = ends.enter_context(certificate_door(port, authority))
            yield ends.enter_context(rendezvous.with_certificate(door.port, authority, "rank-1.job-7.test"))


def through(kind: str, size: int) -> float:
    """Seconds for `size` bytes through the doors, with the handshakes."""
    data = bytes(size)

    def once() -> None:
        with socket.create_connection((LOOPBACK, own)) as connection:
            connection.sendall(data)
            connection.recv(1)

    with sink(size) as port, doors(kind, port) as own:
        return took(once, 5)


def show(title: str, rows: dict[str, list[str]], heads: list[str]) -> None:
    """Prints a table."""
    columns = {title: list(rows)} | {head: [row[place] for row in rows.values()] for place, head in enumerate(heads)}
    print(table(columns) + "\n")


def the_wire(size: int) -> int:
    """Prints what a listener heard; 1 where it heard too much or nothing at all."""
    if why := wire.missing():
        print(f"The wire is left out: {why}")
        return 0
    heard = wire.listen(size, times=5)
    rows = {
        name: [
            f"{each.packets:,}",
            f"{each.in_clear:,}",
            format_bytes(each.bytes),
            format_seconds(statistics.median(each.times_s)),
        ]
        for name, each in heard.items()
    }
    show("the wire", rows, ["packets", "with the word", "bytes", "an all-reduce"])
    print(wire.missing_wireguard())
    if dropped := heard["cable"].dropped:
        print(f"{dropped:,} packets came too fast for the listener, so none of its zeros is certain")
    return int(heard["cable"].in_clear == 0 or any(heard[name].in_clear for name in heard if name != "cable"))


def main() -> int:
    """Measures and prints; 1 where a limit is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=16)
    size = parser.parse_args().mib * MIB
    times = on_bytes(size)
    plain = times["SHA-256"]
    rows = {name: [f"{size / each / 1e9:.2f}", f"{each / plain:.2f}"] for name, each in times.items()}
    show("bytes", rows, ["GB/s", "time / SHA-256"])
    kinds = ("plain", "token", "mutual TLS")
    joined, sent = ({kind: through(kind, length) for kind in kinds} for length in (1, size))
    rows = {
        kind: [format_seconds(joined[kind]), format_seconds(sent[kind]), f"{sent[kind] / sent['plain']:.2f}"]
        for kind in kinds
    }
    show("doors", rows, ["joining", f"{format_bytes(size)}", "over plain"])
    slow = times["Channel.seal (HMAC-SHA256)"] / plain > MOST
    return int(slow) | the_wire(size)


if __name__ == "__main__":
    sys.exit(main())
