"""Holding operations back so that the loopback behaves like a slower `Link`.

With each message goes a small one, its header: the moment at which the message would have left the sender's link. The
clock is the machine's own, so the receiver can compare it with its own link. Headers travel on connections of their
own, with the tag of their message; so they meet no other message, and a receive from any source learns of its header
once it knows who sent. The bytes themselves travel at once, while the emulated time runs. For a collective all ranks
first agree on the moment the last of them joined, and on the time of the slowest.
"""

import bisect
import threading
from collections import deque
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch.futures import Future

from parallel_lab.network import Link, Nodes
from parallel_lab.runtime.rank.waiting import OwnFuture, Turns, clock

ROUNDING_S = 1e-6  # gaps are sums of floating-point moments
REMEMBERED = 1000  # so many messages back a gap on the way in can still be found


class LateFuture(OwnFuture):
    """The future of a collective that a link holds back, completed at `due_s` of the monotonic clock.

    Making it tells all ranks that this one asked at `asked_s` for what takes it `seconds`. When they have `joined`, the
    header says when the last of them asked and how long the slowest takes.
    """

    def __init__(self, inner: dist.ProcessGroup, asked_s: float, seconds: float) -> None:
        super().__init__()
        self.inner = inner
        self.header = torch.tensor([asked_s, seconds], dtype=torch.float64, device="cpu")
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MAX  # pyright: ignore[reportAttributeAccessIssue] (a RedOpType, which it takes)
        self.joined = inner.allreduce([self.header], options).get_future()
        self.payload: Future | None = None
        self.due_s = 0.0

    def arrived(self) -> bool:
        """Whether all ranks have joined and the bytes are here, long before their time."""
        return self.joined.done() and self.payload is not None and self.payload.done()

    def deliver(self) -> object:
        """The payload's result, or its error, when its time has come."""
        clock.until(self.due_s)
        return self.payload and self.payload.value()


class WayIn:
    """When messages come in at one rank: one at a time, in the order of arrival and not of looking at them.

    So each takes the first gap that is long enough, from the moment it could begin to come in.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[float, float]] = []  # stretches, sorted and disjoint

    @property
    def free_s(self) -> float:
        """When the last message that is known of is in."""
        return self.taken[-1][1] if self.taken else 0.0

    def book(self, due_s: float, seconds: float) -> float:
        """Finds room for a message that would be in at `due_s` if nothing else came; returns when it will be in."""
        start_s = due_s - seconds
        place = max(0, bisect.bisect(self.taken, (start_s,)) - 1)
        while place < len(self.taken) and self.taken[place][0] < start_s + seconds - ROUNDING_S:
            start_s = max(start_s, self.taken[place][1])
            place += 1
        self.taken.insert(place, (start_s, start_s + seconds))
        del self.taken[:-REMEMBERED]
        return start_s + seconds


class Emulator:
    """The emulated link of one kind of one rank: when its way out and its way in are free again."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.out_free_s = 0.0
        self.way_in = WayIn()
        self.pending: deque[LateFuture] = deque()
        self.deliveries = Turns()
        self._lock = threading.Lock()

    def send(
        self, headers: dist.ProcessGroup, asked_s: float, size_bytes: int, to: int, tag: int
    ) -> Callable[[], float]:
        """Sends the header of a message that was asked for at `asked_s`; returns when the message will have left."""
        with self._lock:
            start_s = max(asked_s, self.out_free_s)
            self.out_free_s = start_s + self.link.occupancy_s(size_bytes)
            due_s = start_s + self.link.seconds(size_bytes)
        header = torch.tensor([due_s], dtype=torch.float64, device="cpu")
        work = headers.send([header], to, tag)

        def due() -> float:
            work.wait()
            return header.item()  # and so the header lives until it has been sent

        return due

    def receive(self, headers: dist.ProcessGroup, size_bytes: int, source: int, tag: int) -> Callable[[], float]:
        """Expects the header of a message and returns when the message will have come in."""
        header = torch.zeros(1, dtype=torch.float64, device="cpu")
        work = headers.recv([header], source, tag)

        def due() -> float:
            work.wait()
            with self._lock:
                return self.way_in.book(header.item(), self.link.occupancy_s(size_bytes))

        return due

    def hold_back(self, late: LateFuture, payload: Future) -> LateFuture:
        """Has `late` complete as `payload` does, when the link has carried it."""
        late.payload = payload
        self.pending.append(late)
        late.joined.add_done_callback(self._advance)
        payload.add_done_callback(self._advance)
        return late

    def _advance(self, _: Future) -> None:
        """Gives each collective its turn on the link, those of a group in the order of issue: threads may overtake.

        One of another group need not wait for it: its ranks may have to be done before the first can be joined.
        """
        with self._lock:
            blocked = set()
            for late in list(self.pending):
                if late.inner in blocked or not late.arrived():
                    blocked.add(late.inner)
                    continue
                self.pending.remove(late)
                joined_s, seconds = late.header.tolist()
                self.out_free_s = late.due_s = max(joined_s, self.out_free_s, self.way_in.free_s) + seconds
                self.way_in.book(late.due_s, seconds)
                self.deliveries.add(late, late.deliver)


class Emulators:
    """The emulated links of one rank: a port of its own for each kind."""

    def __init__(self, link: Link | Nodes) -> None:
        self.link = link
        self.kinds: dict[Link, Emulator] = {}
        self._lock = threading.Lock()

    def among(self, ranks: Iterable[int]) -> Emulator:
        """What holds back a message between two ranks, or a collective among `ranks`."""
        link = self.link.among(ranks)
        with self._lock:
            if link not in self.kinds:
                self.kinds[link] = Emulator(link)
            return self.kinds[link]
