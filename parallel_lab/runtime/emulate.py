"""Holding operations back so that the loopback behaves like a slower `Link`.

A message carries, in a small message ahead of it, the moment at which it would have left the sender's link; the clock
is the machine's own, so the receiver can compare it with its own link. The bytes themselves travel at once, while the
emulated time runs. For a collective all ranks first agree on the moment the last of them joined.
"""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.futures import Future

from parallel_lab.runtime.link import Cost, Link
from parallel_lab.runtime.work import future_of

HEADER_TAG = 1 << 20  # tags of headers stand beside those of their messages


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
        while True:
            with self._changed:
                while not self._queue or self._queue[0][0] > time.monotonic():
                    self._changed.wait(self._queue[0][0] - time.monotonic() if self._queue else None)
                _, _, run = heapq.heappop(self._queue)
            run()


class LateFuture(Future):
    """A future that an emulated link completes at `due_s` of the monotonic clock."""

    due_s = 0.0


class Pending(NamedTuple):
    """A collective under way: the futures of its header and of its bytes, the moment the last rank joined, what it
    costs, and the future that the caller has."""

    joined: Future
    payload: Future
    moment: torch.Tensor
    seconds: float
    late: LateFuture

    def arrived(self) -> bool:
        """Whether header and bytes are here."""
        return self.joined.done() and self.payload.done()

    def deliver(self) -> None:
        """Hands the result, or the error, to the caller."""
        try:
            self.late.set_result(self.payload.value())
        except Exception as error:
            self.late.set_exception(error)


class Emulator:
    """The emulated link of one rank: when its way out and its way in are free again."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.timer = Timer()
        self.out_free_s = 0.0
        self.in_free_s = 0.0
        self.pending: deque[Pending] = deque()
        self._lock = threading.Lock()

    def send(self, inner: dist.ProcessGroup, size_bytes: int, to: int, tag: int) -> Callable[[], float]:
        """Sends the header of a message and returns when the message will have left."""
        with self._lock:
            due_s = max(time.monotonic(), self.out_free_s) + self.link.seconds(size_bytes)
            self.out_free_s = due_s
        header = torch.tensor([due_s], dtype=torch.float64)
        work = inner.send([header], to, tag + HEADER_TAG)

        def due() -> float:
            work.wait()
            header.numel()  # the header lives until it has been sent
            return due_s

        return due

    def receive(self, inner: dist.ProcessGroup, size_bytes: int, source: int, tag: int) -> Callable[[], float]:
        """Expects the header of a message and returns when the message will have come in."""
        header = torch.zeros(1, dtype=torch.float64)
        work = inner.recv([header], source, tag + HEADER_TAG)

        def due() -> float:
            work.wait()
            with self._lock:
                self.in_free_s = max(header.item(), self.in_free_s + self.link.seconds(size_bytes))
                return self.in_free_s

        return due

    def collective(
        self, inner: dist.ProcessGroup, start: Callable[[], dist.Work], cost: Cost
    ) -> tuple[dist.Work, "LateFuture"]:
        """Starts a collective and returns its handle and the future that completes when the link would have done it."""
        joined = torch.tensor([time.monotonic()], dtype=torch.float64)
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MAX  # pyright: ignore[reportAttributeAccessIssue] (a RedOpType, which it takes)
        header = inner.allreduce([joined], options)
        work = start()
        entry = Pending(header.get_future(), future_of(work)[0], joined, cost.seconds(self.link), LateFuture())
        self.pending.append(entry)
        entry.joined.add_done_callback(self._advance)
        entry.payload.add_done_callback(self._advance)
        return work, entry.late

    def _advance(self, _: Future) -> None:
        """Gives each collective its turn on the link, in the order of issue: the backend's threads may overtake."""
        with self._lock:
            while self.pending and self.pending[0].arrived():
                entry = self.pending.popleft()
                start_s = max(entry.moment.item(), self.out_free_s, self.in_free_s)
                self.out_free_s = self.in_free_s = entry.late.due_s = start_s + entry.seconds
                self.timer.at(entry.late.due_s, entry.deliver)
