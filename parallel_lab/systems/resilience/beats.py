"""Beats of real processes: each sends a datagram on the loopback at an interval, and is really held up.

A process is held up in two ways. It computes in a loop that lets no beat out, as a native call that holds Python's
lock does. Or it is stopped (SIGSTOP) and goes on later (SIGCONT), as a virtual machine that is moved does. In the end
it is killed. This file is also the program of these processes; it needs the standard library alone, so it starts in
tens of milliseconds.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

MARK = b"beat"
SILENT_S = 30.0  # a process that has sent nothing for so long is not coming


@dataclass
class Recorded:
    """When the beats of one process arrived, and what was done to it."""

    arrivals: list[float] = field(default_factory=list)  # the clock is the monotonic one
    stops: list[tuple[float, float]] = field(default_factory=list)  # from when to when it was stopped
    killed_s: float = 0.0


def record(
    beats: int,
    *,
    interval_s: float = 0.01,
    stops: Mapping[int, float] | None = None,
    busy: Mapping[int, float] | None = None,
) -> Recorded:
    """Starts a process, hears so many beats from it, and kills it.

    Args:
        beats: how many are heard.
        interval_s: how long the process sleeps between two.
        stops: by the number of a beat, for how many seconds the process is stopped once this beat has been heard.
        busy: by the number of a beat, for how many seconds it computes before it sends this beat.

    Raises:
        TimeoutError: the process is silent.
    """
    heard, held = Recorded(), dict(stops or {})
    with contextlib.ExitStack() as ends:
        ear = ends.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(SILENT_S)
        words = [f"{number}:{seconds}" for number, seconds in (busy or {}).items()]
        command = [sys.executable, "-S", "-E", __file__, str(ear.getsockname()[1]), str(interval_s), *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        ends.callback(process.wait)
        ends.callback(process.kill)
        while len(heard.arrivals) < beats:
            ear.recv(64)
            heard.arrivals.append(time.monotonic())
            if (stop_s := held.get(len(heard.arrivals) - 1, 0.0)) > 0:
                heard.stops.append(_hold(process.pid, stop_s))
        heard.killed_s = time.monotonic()
    return heard


def _hold(pid: int, seconds: float) -> tuple[float, float]:
    """Stops a process for a while; returns from when to when."""
    os.kill(pid, signal.SIGSTOP)
    began_s = time.monotonic()
    try:
        time.sleep(seconds)
    finally:
        ended_s = time.monotonic()
        os.kill(pid, signal.SIGCONT)
    return began_s, ended_s


def _beat(port: int, interval_s: float, busy: Mapping[int, float]) -> None:
    """The program of the process: it beats until it is killed, or its parent is gone."""
    number, parent = 0, os.getppid()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        while os.getppid() == parent:
            until_s = time.monotonic() + busy.get(number, 0.0)
            while time.monotonic() < until_s:
                pass
            mouth.sendto(MARK, ("127.0.0.1", port))
            number += 1
            time.sleep(interval_s)


if __name__ == "__main__":
    _beat(
        int(sys.argv[1]), float(sys.argv[2]), {int(n): float(s) for n, s in (word.split(":") for word in sys.argv[3:])}
    )
