"""The task of chapter 19 on messages: rank 0 seals, rank 2 opens, and rank 1 stands on the way with things in mind.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module. Rank 1 knows the
function that seals, and not the key.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.drivers import from_rank_0
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case, name
from parallel_lab.runtime.rank.processor_time import Endless

SENDER, RELAY, RECEIVER = 0, 1, 2
REFUSED, MOST_BYTES = "refused", 64
NO_BYTES = " instead of bytes"
Pair = tuple[Callable[[bytes], bytes], Callable[[bytes], Any]]
Try = tuple[str, str, int | str, bytes]  # in words, what kind, what is to come of it, what the receiver is given


def key_and_payloads(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """A key of 32 bytes, and payloads of `lengths`; rank 0's are used."""
    return (
        [torch.randint(256, (length,), generator=generator, dtype=torch.uint8) for length in (32, *case["lengths"])],
    )


def relayed(fn: Callable, case: Case, tensors: list[Tensor]) -> list:
    """`fn(key, rank, peer)` gives `seal` and `open`; what the receiver made of each message that it was given.

    On rank 1, what each was and what should come of it: the number of the payload, or a refusal.
    """
    key, *payloads = (bytes(tensor.tolist()) for tensor in from_rank_0(tensors))
    rank = dist.get_rank()
    ends = _ends(fn(key, rank, RECEIVER if rank == SENDER else SENDER))  # a stub says so here, on every rank
    if case["look"] == "both":
        return _both_ways(ends, payloads, rank)
    if rank == SENDER:
        _send([_sealed(ends[0], payload) for payload in payloads], RELAY)
        _send([_sealed(fn(key, SENDER, RELAY)[0], payloads[0])], RELAY)
    elif rank == RELAY:
        sealed, (elsewhere,), (own,) = _receive(SENDER), _receive(SENDER), _receive(RECEIVER)
        made_up = fn(bytes(32), SENDER, RECEIVER)[0](payloads[0])
        tries = list(_tries(case["look"], sealed, made_up=made_up, elsewhere=elsewhere, own=own))
        _send([message for *_, message in tries], RECEIVER)
        told = [[words, kind, outcome] for words, kind, outcome, _ in tries]
        as_own = ["message 0 as if rank 1 had sent it", "elsewhere", REFUSED]
        return [*told, as_own] if case["look"] == "names" else told
    else:
        _send([_sealed(fn(key, RECEIVER, SENDER)[0], payloads[0])], RELAY)
        given = _receive(RELAY)
        seen = [_opened(ends[1], each, payloads) for each in given]
        if case["look"] == "names":
            given.append(given[-1])
            seen.append(_opened(fn(key, RECEIVER, RELAY)[1], given[-1], payloads))
        return [seen, [len(each) for each in given]]
    return []


def _tries(look: str, sealed: list[bytes], made_up: bytes, elsewhere: bytes, own: bytes) -> Iterator[Try]:
    """What rank 1 hands on, message by message."""
    first = sealed[0]
    if look == "arrives":
        yield from ((f"message {number}", "right", number, message) for number, message in enumerate(sealed))
    if look == "changes":
        yield from _changes(first)
        yield "a message that was sealed with a made-up key", "key", REFUSED, made_up
        yield "after all of these message 0, as it was sealed,", "state", 0, first
    if look == "again":
        yield "message 0", "right", 0, first
        yield "message 0 for the second time", "again", REFUSED, first
        yield "message 1", "state", 1, sealed[1]
        yield "message 0 for the third time", "again", REFUSED, first
    if look == "order":
        yield "message 1, before message 0,", "order", REFUSED, sealed[1]
        yield "message 0", "state", 0, first
        yield "message 2, with message 1 left out,", "order", REFUSED, sealed[2]
        yield from _spliced(sealed[1], first)
        yield "message 1", "state", 1, sealed[1]
    if look == "names":
        yield "what rank 2 itself had sealed for rank 0", "own", REFUSED, own
        yield "what rank 0 had sealed for rank 1", "elsewhere", REFUSED, elsewhere
        yield "message 0", "state", 0, first


def _changes(first: bytes) -> Iterator[Try]:
    """One bit in each byte, and other lengths."""
    for place in range(len(first)):
        changed = first[:place] + bytes([first[place] ^ 1 << place % 8]) + first[place + 1 :]
        yield f"message 0 with a bit of byte {place} of {len(first)} changed", "changed", REFUSED, changed
    yield "message 0 with the last byte cut off", "changed", REFUSED, first[:-1]
    yield "message 0 with a byte added", "changed", REFUSED, first + b"x"
    yield "an empty message", "changed", REFUSED, b""


def _spliced(new: bytes, old: bytes) -> Iterator[Try]:
    """The head of the next message with the rest of one that was taken already."""
    for place in range(1, len(old)):
        if (both := new[:place] + old[place:]) != new:
            yield f"the first {place} bytes of message 1, then the rest of message 0,", "splice", REFUSED, both


def _both_ways(ends: Pair, payloads: list[bytes], rank: int) -> list:
    """Both seal all payloads, then both open; rank 1 hands on."""
    seal, opens = ends
    if rank == RELAY:
        for source, to in ((SENDER, RECEIVER), (RECEIVER, SENDER)):
            _send(_receive(source), to)
        return [[f"message {number}", "both", number] for number in range(len(payloads))]
    sealed = [_sealed(seal, payload) for payload in payloads]
    if rank == SENDER:
        _send(sealed, RELAY)
        given = _receive(RELAY)
    else:
        given = _receive(RELAY)
        _send(sealed, RELAY)
    return [[_opened(opens, each, payloads) for each in given], [len(each) for each in given]]


def _ends(made: Any) -> Pair:
    if not isinstance(made, list | tuple) or len(made) != 2 or not all(map(callable, made)):
        raise TypeError(
            f"the function returned {name(made)}: expected two functions, one that seals and one that opens"
        )
    return made[0], made[1]


def _sealed(seal: Callable, payload: bytes) -> bytes:
    try:
        message = seal(payload)
    except Exception as error:
        error.add_note(f"The first of the two functions was called with a payload of {len(payload)} bytes, to seal it.")
        raise
    if not isinstance(message, bytes):
        raise TypeError(f"the function that seals returned {name(message)}: expected bytes")
    return message


def _opened(opens: Callable, message: bytes, payloads: Sequence[bytes]) -> int | str:
    try:
        payload = opens(message)
    except Endless:
        raise
    except Exception:  # whatever an answer raises, it has not taken the message
        return REFUSED
    if not isinstance(payload, bytes):
        return f"returned {name(payload)}{NO_BYTES}"
    return payloads.index(payload) if payload in payloads else "returned bytes that rank 0 never sealed"


def _send(messages: Sequence[bytes], to: int) -> None:
    """One message of the group for all of them: their lengths, then their bytes."""
    lengths = torch.tensor([len(messages), *map(len, messages)])
    dist.send(torch.tensor([len(lengths)]), to)
    dist.send(lengths, to)
    dist.send(torch.frombuffer(bytearray(b"".join(messages) + b"."), dtype=torch.uint8), to)


def _receive(source: int) -> list[bytes]:
    count = torch.zeros(1, dtype=torch.int64)
    dist.recv(count, source)
    lengths = torch.zeros(int(count), dtype=torch.int64)
    dist.recv(lengths, source)
    raw = torch.empty(int(lengths[1:].sum()) + 1, dtype=torch.uint8)
    dist.recv(raw, source)
    parts = raw[:-1].split(lengths[1:].tolist())
    return [bytes(part.tolist()) for part in parts]


@grader
def opens_right(outcome: Outcome, advice: dict[str, str]) -> None:
    """The receiver takes what it should and nothing else; `advice` by the kind of message."""
    for rank in (RECEIVER, SENDER) if outcome.case["look"] == "both" else (RECEIVER,):
        got, lengths = outcome.results[rank]
        for (words, kind, right), seen, length in zip(outcome.results[RELAY], got, lengths, strict=True):
            if seen != right:
                should = f"taken payload {right}" if isinstance(right, int) else "refused it"
                found = f"{outcome.at}: rank {rank} was given {words} and {_said(seen)}; it should have {should}"
                raise Wrong(found, advice["value" if str(seen).endswith(NO_BYTES) else kind])
            if kind == "right" and length > outcome.case["lengths"][right] + MOST_BYTES:
                payload = f"a payload of {outcome.case['lengths'][right]} bytes"
                raise Wrong(f"{outcome.at}: {payload} was sealed to {length}", advice["long"])


def _said(what: int | str) -> str:
    return f"took payload {what}" if isinstance(what, int) else what if what != REFUSED else "refused it"
