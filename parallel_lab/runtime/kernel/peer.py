"""What the kernel knows of one rank, and how it says where a rank is and how it ended."""

import contextlib
import re
import signal
import socket
from dataclasses import dataclass, field
from typing import Any

from parallel_lab.runtime import wire
from parallel_lab.runtime.rank.calls import hidden
from parallel_lab.runtime.rank.faults import Kill

_FRAME = re.compile(r'File "(.*)", line (\d+) in (.*)')


@dataclass
class Peer:
    """What the kernel knows of one rank."""

    sock: socket.socket
    output_fd: int
    may_fail: bool = False  # whether the others can do without it
    kill: Kill | None = None  # the fault that is to kill it
    pid: int | None = None  # until it is forked
    reader: wire.Reader = field(default_factory=wire.Reader)
    printed: bytearray = field(default_factory=bytearray)
    done: dict[str, Any] | None = None  # the message with its result
    failed: dict[str, Any] | None = None  # the message with its exception
    state: dict[str, Any] | None = None  # its answer to where it is
    pulse: dict[str, Any] | None = None  # its answer to whether it waits
    code: int | None = None  # its exit code, once it has ended
    ended_s: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.done is not None or self.failed is not None or self.code is not None

    @property
    def lost(self) -> bool:
        """Whether it raised or died."""
        return self.failed is not None or self.died

    @property
    def died(self) -> bool:
        """Whether it ended without a word."""
        return self.code is not None and self.done is None and self.failed is None


def describe_end(peer: Peer) -> str:
    """How a rank ended, in words; empty while it lives or if it returned."""
    if peer.failed and peer.failed["lost"]:
        return "lost its connection to a rank that had ended"
    if peer.failed:
        return f"raised {peer.failed['text'].splitlines()[0]}"
    if peer.done or peer.code is None:
        return ""
    if peer.code >= 0:
        return f"exited with code {peer.code} before it returned"
    name = signal.Signals(-peer.code).name
    if name != "SIGKILL":
        return f"was killed by {name}"
    why = f"as {peer.kill} says" if peer.kill else "which the system does when memory runs out"
    return f"was killed by {name}, {why}"


def read_stack(path: str) -> list[tuple[str, int, str]]:
    """The frames that faulthandler wrote, outermost first."""
    with contextlib.suppress(OSError), open(path) as file:
        return [(name, int(number), where) for name, number, where in _FRAME.findall(file.read())][::-1]
    return []


def learner_frame(frames: list) -> str:
    """The innermost frame that is the learner's, as `file:number`."""
    return next((f"{name}:{number}" for name, number, _ in reversed(frames) if not hidden(name)), "")
