"""Faults that a launch can inject at a rank and an operation: `launch(fn, faults=[Delay(rank=2, seconds=0.1)])`.

Every message passes through the lab process group, which asks `apply` before each operation. `kind` is the
operation's name in a trace (`send`, `recv`, `all_reduce`, ...) and None stands for any; `nth` counts the matching
operations of that rank from 0, and None stands for every one.
"""

import itertools
import os
import signal
import time
from dataclasses import dataclass

from parallel_lab.trace.record import span


@dataclass(frozen=True)
class Fault:
    """Where a fault strikes."""

    rank: int
    kind: str | None = None
    nth: int | None = 0


@dataclass(frozen=True)
class Kill(Fault):
    """The rank is killed (SIGKILL) as it begins the operation, as when a machine goes down."""


@dataclass(frozen=True)
class Delay(Fault):
    """The rank sleeps for `seconds` before the operation; with the default `nth=None`, before each: a slow rank.

    The trace shows the sleep as a span `delay`, as if the rank had computed for longer.
    """

    nth: int | None = None
    seconds: float = 0.1


@dataclass(frozen=True)
class Drop(Fault):
    """The operation is swallowed: a send or a collective never leaves the rank, which goes on as if it had."""


class Injector:
    """The faults of one rank, with a count of the operations that each has seen."""

    def __init__(self, rank: int, faults: tuple[Fault, ...]) -> None:
        self.faults = [(fault, itertools.count()) for fault in faults if fault.rank == rank]

    def apply(self, kind: str) -> bool:
        """Strikes if an operation of this `kind` is due to be hit; True when it is to be dropped."""
        dropped = False
        for fault, seen in self.faults:
            if fault.kind not in (None, kind) or fault.nth not in (None, next(seen)):
                continue
            if isinstance(fault, Kill):
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(fault, Delay):
                with span("delay"):
                    time.sleep(fault.seconds)
            dropped |= isinstance(fault, Drop)
        return dropped
