"""Authenticated messages between ranks: a code of each message that only who has the key can make, or check.

`torch.distributed` sends bytes and believes what arrives. A checksum finds an accident and no attacker: whoever changes
the message computes the checksum anew. A message authentication code (MAC; here HMAC, Krawczyk, Bellare and Canetti,
RFC 2104) needs a key for that. The code alone says that somebody with the key once made these bytes. So it must bind
whatever else the receiver relies on:

- the number of the message, or an old one can be sent again, left out, or sent in another order;
- sender and receiver, or a message goes back to who sent it, or on to another rank, and is right there;
- what the bytes mean (dtype and shape), where the receiver does not know it already.

A key for each pair of ranks says who sent it. With one key for all of them any rank can write in the name of any other.

Each message carries 12 bytes of names and number, and 32 of code. The bytes travel in clear: for secrecy take an
authenticated cipher (AES-GCM, ChaCha20-Poly1305), with the number as the nonce and a key for each *direction*: both
ends count from 0, and under the one key of the pair each nonce would come twice.

What this does not stop: reading; the loss of the last message, and delay; after a restart that counts from 0 again, all
messages of the earlier run, unless the keys are new; a rank that lies, since its code is right; who has the memory of a
rank has its keys. Over a chain of ranks, as in a ring, each hop is authentic and the sum is what the ranks on the way
made of it.
"""

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

HEADER = struct.Struct("<HHQ")  # sender, receiver, number of the message from one to the other
TAG_BYTES = 32
OVERHEAD_BYTES = HEADER.size + TAG_BYTES
EVERYTHING: Sequence[str] = ("sender", "receiver", "number")


class Refused(Exception):
    """A message, a ticket or a connection that is not what it should be; nothing of it has been used."""


def derive(secret: bytes, about: str) -> bytes:
    """A key of its own for `about` from a secret (HKDF with SHA-256, RFC 5869, without salt): none tells another."""
    return HKDF(SHA256(), 32, salt=None, info=about.encode()).derive(secret)


def keys_of(secret: bytes, rank: int, ranks: int) -> dict[int, bytes]:
    """By peer, the keys that a launcher hands to `rank`: those of its own pairs. The secret stays with the launcher."""
    return {peer: derive(secret, f"pair {min(rank, peer)} {max(rank, peer)}") for peer in range(ranks) if peer != rank}


@dataclass
class Channel:
    """One rank's end of a pair: seals what goes out, and opens what comes in, in order.

    Attributes:
        key: Of this pair.
        me: This rank.
        peer: The other one.
        binds: What the code binds beside the payload. With less than everything, `relay.py` shows what gets through.
        sent: How many messages went out.
        received: How many were accepted.
    """

    key: bytes
    me: int
    peer: int
    binds: Sequence[str] = EVERYTHING
    sent: int = 0
    received: int = 0

    def seal(self, payload: bytes, about: bytes = b"") -> bytes:
        """Names and number, payload, code. `about` is bound too, and does not travel: the receiver knows it."""
        header = HEADER.pack(self.me, self.peer, self.sent)
        self.sent += 1
        return b"".join((header, payload, self._code(header, about, payload)))

    def open(self, message: bytes, about: bytes = b"") -> bytes:
        """The payload.

        Raises:
            Refused: it is not the next message from the peer to this rank. The next one may still come.
        """
        view = memoryview(message)
        header, payload, code = view[: HEADER.size], view[HEADER.size : -TAG_BYTES], view[-TAG_BYTES:]
        if len(message) < OVERHEAD_BYTES or not hmac.compare_digest(code, self._code(header, about, payload)):
            raise Refused("the code is not that of these bytes")
        said: dict[str, int] = dict(zip(EVERYTHING, HEADER.unpack(header), strict=True))
        right = {"sender": self.peer, "receiver": self.me, "number": self.received}
        if wrong := [f"{what} {said[what]}, not {right[what]}" for what in self.binds if said[what] != right[what]]:
            raise Refused(f"the message says {', '.join(wrong)}")
        self.received += 1  # not before: a message that is refused must not put the right one out of step
        return bytes(payload)

    def _code(self, header: bytes | memoryview, about: bytes, payload: bytes | memoryview) -> bytes:
        said = zip(EVERYTHING, HEADER.unpack(header), strict=True)
        bound = [value if what in self.binds else 0 for what, value in said]
        code = hmac.new(self.key, struct.pack("<Q", len(about)) + about + struct.pack("<3Q", *bound), "sha256")
        code.update(payload)
        return code.digest()


def send(tensor: Tensor, channel: Channel, group: dist.ProcessGroup | None = None) -> None:
    """As `torch.distributed.send`, to the channel's peer, sealed: 44 bytes more."""
    raw = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes()
    sealed = channel.seal(raw, _meaning(tensor))
    dist.send(torch.frombuffer(bytearray(sealed), dtype=torch.uint8), channel.peer, group)


def recv(tensor: Tensor, channel: Channel, group: dist.ProcessGroup | None = None) -> None:
    """As `torch.distributed.recv`, from the channel's peer; `tensor` stays as it is until the code is right.

    Raises:
        Refused: the message is not the peer's next one, or is of another dtype or shape.
    """
    sealed = torch.empty(tensor.numel() * tensor.element_size() + OVERHEAD_BYTES, dtype=torch.uint8)
    dist.recv(sealed, channel.peer, group)
    raw = channel.open(sealed.numpy().tobytes(), _meaning(tensor))
    with torch.no_grad():
        tensor.copy_(torch.frombuffer(bytearray(raw), dtype=tensor.dtype).view(tensor.shape))


def _meaning(tensor: Tensor) -> bytes:
    return f"{tensor.dtype} {tuple(tensor.shape)}".encode()
