"""Waiting for a rank that may die, where others go on without it (`launch(may_fail=...)`).

gloo nearly always sees that the other side of a connection has gone. But where a rank dies in the middle of an exchange
it may miss the end of the stream: a send to that rank, and everything after it, then waits for ever, about once in a
hundred deaths. The kernel knows who has died and says so; whoever waits for that rank gets an error.
"""

import threading
from collections.abc import Callable, Collection

NOTICE_S = 0.1  # for gloo to notice by itself, and for what the dead rank sent to come in


class Liveness:
    """The global ranks that may die, and those that have. Messages of other ranks are waited for without more ado."""

    def __init__(self, may_fail: Collection[int] = ()) -> None:
        self.may_fail = frozenset(may_fail)
        self._gone: set[int] = set()
        self._changed = threading.Condition()

    def note(self, rank: int) -> None:
        """Rank `rank` has died."""
        with self._changed:
            self._gone.add(rank)
            self._changed.notify_all()

    def wait(self, peer: int, wait: Callable[[], float]) -> float:
        """What `wait`, which waits for a message, returns.

        Raises:
            RuntimeError: rank `peer` has died, and `wait` does not end.
        """
        if peer not in self.may_fail:
            return wait()
        outcome: list[float | Exception] = []
        threading.Thread(target=self._run, args=(wait, outcome), daemon=True, name="waiter").start()
        with self._changed:
            self._changed.wait_for(lambda: outcome or peer in self._gone)
            self._changed.wait_for(lambda: outcome, NOTICE_S)
        if not outcome:
            raise RuntimeError(f"Connection closed by rank {peer}, which has died")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def _run(self, wait: Callable[[], float], outcome: list[float | Exception]) -> None:
        try:
            result = wait()
        except Exception as error:
            result = error
        with self._changed:
            outcome.append(result)
            self._changed.notify_all()
