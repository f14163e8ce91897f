"""What a rank has asked of its process groups: the source of every explanation of a hang.

PyTorch's flight recorder keeps the same facts inside the backend; here they are kept at the door, where point-to-point
messages, sub-groups and the learner's line are known too.
"""

import contextlib
import functools
import json
import os
import sys
import threading
from dataclasses import astuple, dataclass
from typing import BinaryIO

import torch

# Frames of these are not the learner's: this package, torch, and the standard library.
_HIDDEN = tuple(os.path.dirname(path) + os.sep for path in (os.path.dirname(__file__), torch.__file__))
_STANDARD = os.path.dirname(os.__file__) + os.sep

ISSUED, WAITING, DONE = "issued", "waiting", "done"
RECENT = 1000  # a rank that has more messages than this under way is not looked at closely
POINT_TO_POINT = ("send", "recv")


@dataclass(slots=True)
class Call:
    """One operation that a rank asked for.

    Attributes:
        kind: as in a trace: `all_reduce`, `send`, ...
        group: the group's name; empty for the default group.
        ranks: the global ranks of the group.
        number: of a collective, how many collectives this rank had called on the group before it; of a message, how
            many this rank had exchanged with the peer in that direction.
        bytes: the payload.
        peer: the global rank of the other side, or of the root; -1 where there is none.
        line: the learner's line, `file:number`.
        state: issued, waiting (the rank stands still for it) or done.
    """

    kind: str
    group: str
    ranks: tuple[int, ...]
    number: int
    bytes: int
    peer: int
    line: str
    state: str = ISSUED

    @property
    def collective(self) -> bool:
        """Whether every rank of the group takes part."""
        return self.kind not in POINT_TO_POINT


class CallLog:
    """The calls of this rank, in order; also written to `file` as they begin, for when the rank dies without a word."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self.calls: list[Call] = []
        self.file = file
        self._counts: dict[tuple, int] = {}
        self._lock = threading.Lock()  # a parameter server has a thread for each worker

    def begin(self, kind: str, group: str, ranks: tuple[int, ...], size_bytes: int, peer: int, line: str) -> Call:
        """Notes a call and numbers it."""
        key = (group, kind, peer) if kind in POINT_TO_POINT else (group,)
        with self._lock:
            number = self._counts.get(key, 0)
            self._counts[key] = number + 1
            self.calls.append(call := Call(kind, group, ranks, number, size_bytes, peer, line))
            if self.file:
                self.file.write(json.dumps(astuple(call)).encode() + b"\n")
        return call

    def waiting(self) -> bool:
        """Whether this rank stands still in a call, and has no thread of its own that could make another."""
        own = {"MainThread", "kernel", "link", "waiter"}
        alone = all(thread.name in own for thread in threading.enumerate())
        return alone and any(call.state == WAITING for call in self.calls[-RECENT:])


def read_calls(path: str) -> list[Call]:
    """The calls that a rank had written to its file; none where it never got that far."""
    calls = []
    with contextlib.suppress(OSError, ValueError), open(path) as file:
        for line in file:
            kind, group, ranks, *rest = json.loads(line)
            calls.append(Call(kind, group, tuple(ranks), *rest))
    return calls


def learner_line() -> str:
    """The innermost line of the caller that belongs neither to torch nor to the runtime, as `file:number`."""
    frame = sys._getframe(1)
    while frame is not None:
        if not hidden(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@functools.cache
def hidden(file: str) -> bool:
    """Whether a frame of this file is of no interest to the learner."""
    standard = file.startswith(_STANDARD) and "site-packages" not in file
    return file.startswith((*_HIDDEN, "<frozen")) or standard or file.endswith("typing_extensions.py")
