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
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Self

from parallel_lab.systems.security.messages import Refused

LOOPBACK = "127.0.0.1"
PATIENCE_S = 10.0  # for a handshake: who says nothing must not hold a place for ever
BLOCK_BYTES = 2**16
LOOK_S = 0.05  # between two looks whether it is over
NONCE_BYTES = 32

Wrap = Callable[[socket.socket], tuple[socket.socket, str]]  # a connection, to what passes over it and whose it is


def plain(connection: socket.socket) -> tuple[socket.socket, str]:
    """Nobody asks, nobody answers."""
    return connection, "anybody"


class Proxy:
    """Stands before a server while its block runs: `with Proxy(port) as door`.

    Attributes:
        port: Where it listens.
        admitted: Who came in.
        refused: Why somebody did not, or what ended a connection.
        passed_bytes: What went through, both ways.
    """

    def __init__(
        self,
        port: int,
        *,
        inward: Wrap = plain,
        outward: Wrap = plain,
        change: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """Begins to listen on the loopback.

        Args:
            port: Of the server behind it.
            inward: What is asked of who comes in.
            outward: What is said to the server behind.
            change: What becomes of each piece that passes: an attacker's part.
        """
        self.target, self.inward, self.outward, self.change = (LOOPBACK, port), inward, outward, change
        self.admitted: list[str] = []
        self.refused: list[str] = []
        self.passed_bytes = 0
        self._listener, self._stop = socket.create_server((LOOPBACK, 0)), threading.Event()
        self._listener.settimeout(LOOK_S)
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all connections and waits for their threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: Callable, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):  # nobody came: a look, and on
                connection, _ = self._listener.accept()
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        """One connection, from its handshakes to its end."""
        connection.settimeout(PATIENCE_S)
        try:
            with connection, contextlib.ExitStack() as ends:
                inner, who = self.inward(connection)
                self.admitted.append(who)
                ends.enter_context(inner)
                behind = ends.enter_context(socket.create_connection(self.target, PATIENCE_S))
                self._pump(inner, ends.enter_context(self.outward(behind)[0]))
        except (Refused, OSError) as error:  # ssl's errors are OSErrors
            self.refused.append(str(error))

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        """Hands on what comes from either side until one of them ends; one thread, since TLS wants no two."""
        way = {one: other, other: one}
        while not self._stop.is_set():
            waiting = [end for end in way if isinstance(end, ssl.SSLSocket) and end.pending()]
            for end in waiting or select.select(list(way), [], [], LOOK_S)[0]:
                if (data := _arrived(end)) == b"":
                    return
                if data:
                    self.passed_bytes += len(data)
                    way[end].sendall(self.change(data))


def _arrived(end: socket.socket) -> bytes | None:
    """What there is to read: b"" at the end, None where a record of TLS holds nothing for us (a ticket does not)."""
    end.setblocking(False)
    try:
        return end.recv(BLOCK_BYTES)
    except (ssl.SSLWantReadError, BlockingIOError):
        return None
    finally:
        end.settimeout(PATIENCE_S)


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
