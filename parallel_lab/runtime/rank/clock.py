"""Waiting for moments of the monotonic clock, to a tenth of a millisecond.

A wait ends late, by 0.3 ms on a virtual machine, which is 5 % of a message of 6 ms. So it is made shorter by as much as
the last ones were late, and what is left of the time is spent letting other threads run.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

MOST_S = 1e-3  # no wait is made shorter by more: lateness beyond it is that of a busy machine


class PreciseSleep:
    """Waits that end on time.

    Args:
        wait: blocks for some seconds; says True if something else ended it before (as `Condition.wait` does).

    Attributes:
        late_s: how late the last waits were, a running mean.
    """

    def __init__(self, wait: Callable[[float], object] = time.sleep) -> None:
        self.wait = wait
        self.late_s = 0.0

    def approach(self, moment_s: float) -> bool:
        """Waits once, until shortly before `moment_s` at most; returns whether the moment has come."""
        left_s = moment_s - time.monotonic()
        if left_s > self.late_s:
            wake_s = moment_s - self.late_s
            if not self.wait(left_s - self.late_s):
                late_s = min(max(time.monotonic() - wake_s, 0.0), MOST_S)
                self.late_s += (late_s - self.late_s) / 8
        elif left_s > 0:
            time.sleep(0)
        return time.monotonic() >= moment_s

    def until(self, moment_s: float) -> None:
        """Returns at `moment_s`, or at once if that is over."""
        while not self.approach(moment_s):
            pass


class Timer:
    """Runs functions at given moments, on one thread of its own that starts when first needed."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def at(self, moment_s: float, run: Callable[[], None]) -> None:
        """Runs `run` at `moment_s` of the monotonic clock."""
        with self._changed:
            heapq.heappush(self._queue, (moment_s, next(self._order), run))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, daemon=True, name="link")
                self._thread.start()

    def _loop(self) -> None:
        clock = PreciseSleep(self._changed.wait)
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                run = heapq.heappop(self._queue)[2] if clock.approach(self._queue[0][0]) else None
            if run:
                run()
