"""Who stands on the way of messages, and what he can do without the key; each against five ways to protect them.

The attacker has every sealed message and may hand on any bytes in any order. An attack has succeeded when the receiver
has taken anything but the first messages that the sender sent, in their order. That is the whole promise: a channel
that is cut off at some point delivers what came before, and no channel can do more against who owns the cable.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist

from parallel_lab.systems.security.at_rest import flip_bit
from parallel_lab.systems.security.messages import EVERYTHING, Channel, Refused, derive, keys_of

SECRET = b"of the launcher, for this demonstration"
PAYLOADS = (b"gradient of step 0", b"gradient of step 1", b"gradient of step 2")
SENDER, RECEIVER, THIRD = 0, 1, 2
IN_PAYLOAD = 14  # a byte of it, with a header in front or without


class Protected(Protocol):
    """One end of a pair."""

    def seal(self, payload: bytes) -> bytes:
        """What travels."""
        ...

    def open(self, message: bytes) -> bytes:
        """The payload, or `Refused`."""
        ...


Make = Callable[[int, int, int], Protected]  # of the rank whose keys are used, and of me and peer


@dataclass
class Checked:
    """A checksum in place of a code: it finds what happened by accident."""

    me: int
    peer: int

    def seal(self, payload: bytes) -> bytes:
        """The payload and its CRC32."""
        return payload + struct.pack("<I", zlib.crc32(payload))

    def open(self, message: bytes) -> bytes:
        """The payload, or `Refused`."""
        if struct.pack("<I", zlib.crc32(message[:-4])) != message[-4:]:
            raise Refused("the checksum is not that of these bytes")
        return message[:-4]


def _checksum(owner: int, me: int, peer: int) -> Protected:
    return Checked(me, peer)


def _group_key(owner: int, me: int, peer: int, binds: Sequence[str] = EVERYTHING) -> Protected:
    return Channel(derive(SECRET, "all ranks"), me, peer, binds)  # whoever it is, the key is the same


def _pair_key(owner: int, me: int, peer: int) -> Protected:
    keys = keys_of(SECRET, owner, 3)
    return Channel(keys.get(peer if me == owner else me, bytes(32)), me, peer)


PROTECTIONS: dict[str, Make] = {
    "checksum": _checksum,
    "code of the payload": partial(_group_key, binds=()),
    "and of the number": partial(_group_key, binds=("number",)),
    "and of the names": _group_key,
    "a key for each pair": _pair_key,
}


def changed(make: Make) -> list[bytes]:
    """One bit of the last message is another one, as an accident would do it."""
    *before, last = _sealed(make)
    return [*before, flip_bit(last, IN_PAYLOAD, 0)]


def recomputed(make: Make) -> list[bytes]:
    """Bytes of the attacker's own. He knows how the code is made, and has no key but one that he made up."""
    made_up = make(SENDER, SENDER, RECEIVER)
    if isinstance(made_up, Channel):
        made_up.key = bytes(32)
    return [made_up.seal(b"gradient of nobody"), *_sealed(make)]


def replayed(make: Make) -> list[bytes]:
    """The first message comes twice."""
    first, *rest = _sealed(make)
    return [first, first, *rest]


def left_out(make: Make) -> list[bytes]:
    """The second message does not come."""
    first, _, third = _sealed(make)
    return [first, third]


def swapped(make: Make) -> list[bytes]:
    """Two messages come in the other order."""
    first, second, third = _sealed(make)
    return [second, first, third]


def reflected(make: Make) -> list[bytes]:
    """The receiver gets its own message back, as if it were the sender's."""
    return [make(RECEIVER, RECEIVER, SENDER).seal(b"gradient of the receiver")]


def redirected(make: Make) -> list[bytes]:
    """The receiver gets what the sender had sealed for a third rank."""
    return [make(SENDER, SENDER, THIRD).seal(b"gradient for the third")]


def forged(make: Make) -> list[bytes]:
    """The third rank, with the keys that it was given, writes in the sender's name."""
    return [make(THIRD, SENDER, RECEIVER).seal(b"gradient of the third")]


ATTACKS = (changed, recomputed, replayed, left_out, swapped, reflected, redirected, forged)


def _sealed(make: Make) -> list[bytes]:
    sender = make(SENDER, SENDER, RECEIVER)
    return [sender.seal(payload) for payload in PAYLOADS]


def delivered(receiver: Protected, messages: Sequence[bytes]) -> list[bytes]:
    """What the receiver takes of these messages."""
    taken = []
    for message in messages:
        try:
            taken.append(receiver.open(message))
        except Refused:
            continue
    return taken


def succeeds(attack: Callable[[Make], list[bytes]], make: Make) -> bool:
    """Whether the receiver takes anything but the first messages of the sender in their order."""
    taken = delivered(make(RECEIVER, RECEIVER, SENDER), attack(make))
    return taken != list(PAYLOADS[: len(taken)])


def matrix() -> dict[str, dict[str, bool]]:
    """By attack and protection, whether the attack succeeds."""
    return {
        attack.__name__.replace("_", " "): {name: succeeds(attack, make) for name, make in PROTECTIONS.items()}
        for attack in ATTACKS
    }


def through_rank_1(attack: str, protection: str) -> list[str]:
    """On three ranks: rank 0 sends to rank 2, and each message passes rank 1, which does not only hand on.

    Args:
        attack: One of `pass`, `change`, `replay`, `swap`.
        protection: A name of `PROTECTIONS`.

    Returns:
        What rank 2 took; nothing on the others.
    """
    rank, make = dist.get_rank(), PROTECTIONS[protection]
    if rank == 0:
        end = make(0, 0, 2)
        _put([end.seal(payload) for payload in PAYLOADS], 1)
    if rank == 1:
        messages = _get(0, make)
        first, second, third = messages
        _put(
            {
                "pass": messages,
                "change": [first, second, flip_bit(third, IN_PAYLOAD, 0)],
                "replay": [first, first, second],
                "swap": [second, first, third],
            }[attack],
            2,
        )
    if rank == 2:
        return [payload.decode() for payload in delivered(make(2, 2, 0), _get(1, make))]
    return []


def _put(messages: Sequence[bytes], to: int) -> None:
    """All of them at once, since they are of one length."""
    dist.send(torch.tensor([list(message) for message in messages], dtype=torch.uint8), to)


def _get(source: int, make: Make) -> list[bytes]:
    rows = torch.empty(len(PAYLOADS), len(_sealed(make)[0]), dtype=torch.uint8)
    dist.recv(rows, source)
    return [row.numpy().tobytes() for row in rows]
