"""A proxy that stands before a port and says who comes in, as stunnel does; and one that changes what passes.

Neither torch's store nor gloo's connections can be given a password or a certificate. So a program stands in front: on
the store's side a proxy that asks, on the rank's side one that answers, and between them the bytes of torch as they
are. A rank talks to its own proxy as if that were the store.
"""

import contextlib
import hmac
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch

from parallel_lab.systems.security.messages import Refused

LOOPBACK = "127.0.0.1"
PATIENCE_S = 10.0  # for a handshake: who says nothing must not hold a place for ever
BLOCK_BYTES = 2**16
NONCE_BYTES = 32

Wrap = Callable[[socket.socket], tuple[socket.socket, str]]  # a connection, to what passes over it and whose it is


def plain(connection: socket.socket) -> tuple[socket.socket, str]:
    """Nobody asks, nobody answers."""
    return connection, "anybody"


@dataclass
class Proxy:
    """What a running proxy has seen.

    Attributes:
        port: Where it listens.
        admitted: Who came in.
        refused: Why somebody did not.
        passed_bytes: What went through, both ways.
    """

    port: int
    admitted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    passed_bytes: int = 0


@contextlib.contextmanager
def proxy(
    port: int,
    *,
    host: str = LOOPBACK,
    listen: str = LOOPBACK,
    inward: Wrap = plain,
    outward: Wrap = plain,
    change: Callable[[bytes], bytes] = bytes,
) -> Iterator[Proxy]:
    """A proxy before `host:port` while the block runs.

    Args:
        port: Of the server behind it.
        host: Of the server behind it.
        listen: The address at which it listens, at a port that the system chooses.
        inward: What is asked of who comes in.
        outward: What is said to the server behind.
        change: What becomes of each piece that passes: an attacker's part.
    """
    with socket.create_server((listen, 0)) as listener, contextlib.ExitStack() as ends:
        told, stop = Proxy(listener.getsockname()[1]), threading.Event()
        threads: list[threading.Thread] = []

        def end() -> None:
            stop.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            for thread in threads:
                thread.join()

        def serve(connection: socket.socket) -> None:
            with connection:
                _serve(connection, (host, port), inward, outward, change, told, stop)

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=serve, args=[connection], daemon=True))
                    threads[-1].start()

        ends.callback(end)
        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
        yield told


def _serve(
    connection: socket.socket,
    target: tuple[str, int],
    inward: Wrap,
    outward: Wrap,
    change: Callable[[bytes], bytes],
    told: Proxy,
    stop: threading.Event,
) -> None:
    """One connection, from its handshakes to its end."""
    connection.settimeout(PATIENCE_S)
    try:
        inner, who = inward(connection)
        told.admitted.append(who)
        with inner, socket.create_connection(target, PATIENCE_S) as behind:
            outer, _ = outward(behind)
            with outer:
                _pump(inner, outer, change, told, stop)
    except (Refused, OSError) as error:  # ssl's errors are OSErrors
        told.refused.append(str(error))


def _pump(one: socket.socket, other: socket.socket, change: Callable, told: Proxy, stop: threading.Event) -> None:
    """Hands on what comes from either side until one of them ends; one thread, since TLS wants no two."""
    way = {one: other, other: one}
    while not stop.is_set():
        waiting = [end for end in way if isinstance(end, ssl.SSLSocket) and end.pending()]
        for end in waiting or select.select(list(way), [], [], 0.05)[0]:
            data = end.recv(BLOCK_BYTES)
            if not data:
                return
            told.passed_bytes += len(data)
            way[end].sendall(change(data))


def asks_token(token: bytes) -> Wrap:
    """Asks for a code of a fresh random number, made with the token, which itself never travels."""

    def inward(connection: socket.socket) -> tuple[socket.socket, str]:
        nonce = os.urandom(NONCE_BYTES)
        connection.sendall(nonce)
        if not hmac.compare_digest(_exactly(connection, 32), hmac.digest(token, nonce, "sha256")):
            raise Refused("the answer was not made with the token")
        return connection, "somebody with the token"

    return inward


def has_token(token: bytes) -> Wrap:
    """Answers `asks_token`."""

    def outward(connection: socket.socket) -> tuple[socket.socket, str]:
        connection.sendall(hmac.digest(token, _exactly(connection, NONCE_BYTES), "sha256"))
        return connection, "the server"

    return outward


def asks_certificate(context: ssl.SSLContext, names: str = "*") -> Wrap:
    """Asks for a certificate (mutual TLS), of a name that fits the pattern `names`."""

    def inward(connection: socket.socket) -> tuple[socket.socket, str]:
        inner = context.wrap_socket(connection, server_side=True)
        who = _name(inner)
        if not fnmatch(who, names):
            inner.close()
            raise Refused(f"{who} has a certificate, and no business here")
        return inner, who

    return inward


def has_certificate(context: ssl.SSLContext, server: str) -> Wrap:
    """Shows its certificate, and sees that the other one is `server`."""

    def outward(connection: socket.socket) -> tuple[socket.socket, str]:
        return context.wrap_socket(connection, server_hostname=server), server

    return outward


def _name(connection: ssl.SSLSocket) -> str:
    """The first name in the certificate of the other side."""
    told = connection.getpeercert() or {}
    names = [str(value) for _, value in told.get("subjectAltName", ())]
    return names[0] if names else "nobody"


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := connection.recv(count - len(data))):
            raise Refused("the connection ended in the middle of the handshake")
        data += more
    return data
