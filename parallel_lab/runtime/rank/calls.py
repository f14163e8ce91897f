"""What a rank has asked of its process groups: the source of every explanation of a hang.

PyTorch's flight recorder keeps the same facts inside the backend; here they are kept at the door, where point-to-point
messages, sub-groups and the learner's line are known too.
"""

import contextlib
import functools
import itertools
import marshal
import mmap
import os
import sys
import threading
from collections import deque
from dataclasses import dataclass

import torch

# Frames of these are not the learner's: this package, torch, and the standard library.
_HIDDEN = tuple(os.path.dirname(path) + os.sep for path in (os.path.dirname(__file__), torch.__file__))
_STANDARD = os.path.dirname(os.__file__) + os.sep

ISSUED, WAITING, DONE, DROPPED = "issued", "waiting", "done", "dropped"
RECENT = 1000  # a rank that has more messages than this under way is not looked at closely
POINT_TO_POINT = ("send", "recv")
KEPT = 10_000  # calls of a rank: more than the largest plan has under way
STREAMS = 20_000  # that are counted: a program may give each message a tag of its own
UNCOUNTED = -1  # the number of a call of a stream beyond these
_NAMES: dict[torch.dtype, str] = {}  # `float32` of torch.float32: to look it up is quicker than to make it
SLOT_BYTES = 1024  # of one call in the file: 64 ranks and the path of a line


@dataclass(slots=True)
class Call:
    """One operation that a rank asked for."""

    kind: str  # as in a trace: `all_reduce`, `send`, ...
    group: str  # the group's name; empty for the default group
    ranks: tuple[int, ...]  # the global ranks of the group
    number: int  # how many calls of its stream this rank had made before, or UNCOUNTED
    bytes: int  # the payload
    peer: int  # the global rank of the other side, or of the root; -1 where there is none
    line: str  # the learner's line, `file:number`
    tag: int = 0  # of a message
    dtype: str = ""  # of what it carries; empty where there is nothing
    state: str = ISSUED  # or waiting (the rank stands still for it), done, or dropped by a fault
    asked: bool = False  # of a collective: whether anybody has waited for it, or looked whether it is over

    @property
    def collective(self) -> bool:
        """Whether every rank of the group takes part."""
        return self.kind not in POINT_TO_POINT

    @property
    def stream(self) -> tuple:
        """The stream of calls that it belongs to."""
        return stream(self.kind, self.group, self.peer, self.tag)

    @property
    def what(self) -> str:
        """What a message carries: `12 float32 (48 bytes)`."""
        return f"{self.bytes // getattr(torch, self.dtype).itemsize:,} {self.dtype} ({self.bytes:,} bytes)"


def stream(kind: str, group: str, peer: int, tag: int) -> tuple:
    """What the number of a call counts: the collectives of a group, or the messages of a tag to or from a peer."""
    return (group, kind, peer, tag) if kind in POINT_TO_POINT else (group,)


def name_of(dtype: torch.dtype) -> str:
    """`float32` of torch.float32."""
    return _NAMES.get(dtype) or _NAMES.setdefault(dtype, str(dtype).removeprefix("torch."))


class CallLog:
    """The last calls of this rank, in order; a file has them as well, for when the rank dies without a word."""

    def __init__(self, path: str | None = None) -> None:
        self.calls: deque[Call] = deque(maxlen=KEPT)
        self.made: dict[tuple, int] = {}  # of each stream: how many calls there were, kept or not
        self.total = 0  # how many there were in all
        self.slots: mmap.mmap | None = None
        if path:  # a new file as memory: what is written there needs no call of the system, and is there after a death
            with open(path, "w+b") as file:
                file.truncate(KEPT * SLOT_BYTES)  # sparse: what is not written takes no room
                self.slots = mmap.mmap(file.fileno(), KEPT * SLOT_BYTES)
        self._lock = threading.Lock()  # a parameter server has a thread for each worker

    def begin(
        self,
        kind: str,
        group: str,
        ranks: tuple[int, ...],
        size_bytes: int,
        peer: int,
        line: str,
        tag: int = 0,
        dtype: str = "",
        state: str = ISSUED,
    ) -> Call:
        """Notes a call and numbers it. One that is dropped does not count: the next takes its place."""
        with self._lock:
            key = stream(kind, group, peer, tag)
            number = self.made.get(key, 0)
            if number == 0 and len(self.made) >= STREAMS:
                number = UNCOUNTED
            elif state != DROPPED:
                self.made[key] = number + 1
            facts = (tag, dtype, state)
            self.calls.append(call := Call(kind, group, ranks, number, size_bytes, peer, line, *facts))
            if self.slots is not None:
                before = (kind, group, ranks, number, size_bytes, peer)
                record = marshal.dumps((self.total, (*before, line, *facts)))
                if len(record) > SLOT_BYTES:
                    record = marshal.dumps((self.total, (*before, "", *facts)))  # the line's path is too long
                start = self.total % KEPT * SLOT_BYTES
                self.slots[start : start + len(record)] = record
            self.total += 1
        return call

    def waiting(self) -> bool:
        """Whether this rank stands still in a call, and has no thread of its own that could make another."""
        own = {"MainThread", "kernel", "waiter"}
        alone = all(thread.name in own for thread in threading.enumerate())
        with self._lock:  # the kernel's thread asks while others note calls
            recent = list(itertools.islice(reversed(self.calls), RECENT))
        return alone and any(call.state == WAITING for call in recent)


def read_calls(path: str) -> list[Call]:
    """The last calls that a rank had written to its file; none where it never got that far."""
    found = []
    with contextlib.suppress(OSError), open(path, "rb") as file:
        while slot := file.read(SLOT_BYTES):
            with contextlib.suppress(EOFError, ValueError, TypeError):  # an empty slot, or one half written
                found.append(marshal.loads(slot))
    return [Call(*facts) for _, facts in sorted(found)]


def learner_line() -> str:
    """The innermost line of the caller that belongs neither to torch nor to the runtime, as `file:number`."""
    # Of a tensor on a GPU, autograd runs hooks on a thread of its own, while the main thread stands in backward().
    for frame in (sys._getframe(1), sys._current_frames().get(threading.main_thread().ident or 0)):
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
