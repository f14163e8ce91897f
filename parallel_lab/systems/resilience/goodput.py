"""What the time of a run went into, from the log that the run itself has written.

    launch    the supervisor starts the ranks        ready     rank 0 has loaded and begins its first step
    step      a step is done                         save, saved    from when to when a save stopped the training
    killed    a fault struck, where that is known    noticed   the supervisor knows that a rank has failed
    end       the job is over

The log is a file of lines that several processes append to, on one machine with one monotonic clock. Each stretch
between two entries belongs to one part, so the parts sum to the whole. A step that is done again later was lost: only
its last time is useful. The useful share is the effective training time ratio (ETTR) of Kokolis et al. 2025, or
goodput; whoever compares two figures must know whether start-up, queue and planned stops are in the whole.
"""

import itertools
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple


class Event(NamedTuple):
    """An entry of the log."""

    at_s: float
    what: str
    step: int = -1


def note(log: str | os.PathLike, what: str, step: int = -1) -> None:
    """Appends an entry, in one write, so that entries of several processes do not mix; nothing where `log` is empty."""
    if not log:
        return
    line = json.dumps([time.monotonic(), what, step]) + "\n"
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(log: str | os.PathLike) -> list[Event]:
    """The entries in the order of time; a last line that a killed process has not finished is left out."""
    lines = Path(log).read_text(encoding="utf-8").split("\n")[:-1]
    return sorted((Event(*json.loads(line)) for line in lines), key=lambda event: event.at_s)


@dataclass
class Goodput:
    """Seconds by what they went into."""

    useful_s: float = 0.0  # steps that were kept
    lost_s: float = 0.0  # steps that were done again, and those that broke off
    save_s: float = 0.0  # the training stood still for a save
    detect_s: float = 0.0  # from the fault, or from the last sign of life before it, until it was noticed
    wait_s: float = 0.0  # from there to the next start: ending the others, and back-off
    start_s: float = 0.0  # from a start to its first step: processes, rendezvous, loading
    close_s: float = 0.0  # from the last step or save to the end
    kept: int = 0  # steps that were useful
    redone: int = 0  # steps that had to be done again

    @property
    def total_s(self) -> float:
        """The whole: the sum of the parts."""
        return sum(getattr(self, part.name) for part in fields(self) if part.name.endswith("_s"))

    @property
    def ettr(self) -> float:
        """The useful share."""
        return self.useful_s / self.total_s if self.total_s else 0.0


def account(events: Sequence[Event]) -> Goodput:
    """What each stretch between two entries went into."""
    parts, last = Goodput(), _last_times(events)
    for before, now in itertools.pairwise(events):
        part = _part(before, now, last)
        setattr(parts, part, getattr(parts, part) + now.at_s - before.at_s)
    done = [event for event in events if event.what == "step"]
    parts.kept = len(last)
    parts.redone = len(done) - parts.kept
    return parts


def _last_times(events: Iterable[Event]) -> dict[int, Event]:
    """For each step the entry of its last time, which is the one that was kept."""
    return {event.step: event for event in events if event.what == "step"}


def _part(before: Event, now: Event, last: dict[int, Event]) -> str:
    """Which part of `Goodput` the stretch between two entries belongs to."""
    if now.what == "step":
        return "useful_s" if last[now.step] is now else "lost_s"
    if now.what == "noticed":
        return "detect_s"
    return {"launch": "start_s", "noticed": "wait_s", "save": "save_s"}.get(
        before.what, {"killed": "lost_s", "end": "close_s"}.get(now.what, "close_s")
    )


def per_interruption_s(days: float, interruptions: int, effective: float) -> float:
    """The most that one interruption has cost on average, if a run was effective for at least so large a share.

    Llama 3 405B (Meta 2024, section 3.3.4): 54 days, 466 interruptions, above 0.9. Saves are in it.
    """
    return (1 - effective) * days * 86400 / interruptions
