"""How a rank waits: for a moment, for something on a thread of its own, and for a rank that may die.

A wait for a moment ends late, by 0.3 ms on a virtual machine, which is 5 % of a message of 6 ms. So it is made shorter
by as much as the last ones were late, and what is left of the time is spent letting other threads run.

gloo nearly always sees that the other side of a connection has gone. But where a rank dies in the middle of an exchange
it may miss the end of the stream: a send to that rank, and everything after it, then waits for ever, about once in a
hundred deaths. The kernel knows who has died and says so; whoever waits for that rank gets an error.
"""

import concurrent.futures
import queue
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from torch.futures import Future

MOST_S = 1e-3  # no wait is made shorter by more: lateness beyond it is that of a busy machine
NOTICE_S = 0.1  # for gloo to notice a death by itself, and for what the dead rank sent to come in


class PreciseSleep:
    """Waits that end on time, to a tenth of a millisecond."""

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self.sleep = sleep
        self.late_s = 0.0  # how late the last waits were, a running mean

    def until(self, moment_s: float) -> None:
        """Returns at `moment_s` of the monotonic clock, or at once if that is over."""
        while (left_s := moment_s - time.monotonic()) > 0:
            if left_s <= self.late_s:
                time.sleep(0)
                continue
            wake_s = moment_s - self.late_s
            self.sleep(left_s - self.late_s)
            late_s = min(max(time.monotonic() - wake_s, 0.0), MOST_S)
            self.late_s += (late_s - self.late_s) / 8


clock = PreciseSleep()


def on_a_thread(future: Any, wait: Callable[[], Any]) -> Any:
    """Gives `future`, which may be torch's or Python's, what `wait` returns or raises; `wait` blocks another thread."""
    threading.Thread(target=_settle, args=(future, wait), daemon=True, name="waiter").start()
    return future


def _settle(future: Any, wait: Callable[[], Any]) -> None:
    try:
        future.set_result(wait())
    except Exception as error:
        future.set_exception(error)


class OwnFuture(Future):
    """A future that the lab completes, and not the backend: who waits for the backend alone may be too early."""


class Turns:
    """Completes futures one after another, in the order in which they were asked for, on one thread of its own."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._begun = False

    def add(self, future: OwnFuture, wait: Callable[[], Any]) -> OwnFuture:
        """Gives `future` what `wait` returns or raises, when its turn has come."""
        with self._lock:
            self._queue.put((future, wait))
            if not self._begun:
                self._begun = True
                threading.Thread(target=self._run, daemon=True, name="waiter").start()
        return future

    def _run(self) -> None:
        while True:
            _settle(*self._queue.get())


class Liveness:
    """The global ranks that may die (`launch(may_fail=...)`), and the future of each death."""

    def __init__(self, may_fail: Collection[int] = ()) -> None:
        self.deaths = {rank: concurrent.futures.Future() for rank in may_fail}

    def note(self, rank: int) -> None:
        """Rank `rank` has died."""
        self.deaths[rank].set_result(None)

    def wait(self, peer: int, wait: Callable[[], float]) -> float:
        """What `wait`, which waits for a message of `peer`, returns.

        Raises:
            RuntimeError: rank `peer` has died, and `wait` does not end.
        """
        if peer not in self.deaths:
            return wait()
        outcome = on_a_thread(concurrent.futures.Future(), wait)
        concurrent.futures.wait([outcome, self.deaths[peer]], return_when=concurrent.futures.FIRST_COMPLETED)
        concurrent.futures.wait([outcome], NOTICE_S)
        if not outcome.done():
            raise RuntimeError(f"Connection closed by rank {peer}, which has died")
        return outcome.result()
