"""A queue of work that all ranks share: who is free takes the next piece, so a slow rank takes fewer.

Idea (self-scheduling): one counter, which a store adds to atomically; the number that a rank gets is its next piece.
Nobody has to know a speed. A rank is idle at the end for as long as the last piece of another takes at the most, and
each piece costs one request to the store.

Pieces may hold several items. Large ones cost fewer requests and leave more waiting at the end; guided self-scheduling
(Polychronopoulos and Kuck 1987) takes a share 1/n of what is left each time, so that pieces are large first and single
at last. All ranks know the cut into pieces, so the store still counts nothing but requests.

Who does what depends on the clock, so the order of sums does as well: two runs differ in the last bits, which static
shares do not.

Bound (Graham 1966, list scheduling), for n equal ranks: done after work/n + (1 - 1/n) longest at the latest, where
`work` is the time of all pieces on one rank, and `longest` that of the longest piece.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from parallel_lab import compat
from parallel_lab.agree.arguments import whole
from parallel_lab.runtime.group import member

PATIENCE = timedelta(seconds=120)
Pieces = list[list[int]]


def singles(items: int, ranks: int) -> Pieces:
    """Each item by itself."""
    return [[item] for item in range(items)]


def fixed(size: int) -> Callable[[int, int], Pieces]:
    """Pieces of `size` items."""
    whole("size", size)
    return lambda items, ranks: [list(range(first, min(first + size, items))) for first in range(0, items, size)]


def guided(items: int, ranks: int) -> Pieces:
    """Each piece 1/ranks of the items that are left, rounded up."""
    pieces, first = [], 0
    while first < items:
        size = -(-(items - first) // ranks)
        pieces.append(list(range(first, first + size)))
        first += size
    return pieces


class Counters:
    """A store that all ranks of a group see, on the loopback, for one block: `with Counters(group=group) as counters:`.

    The first rank's process serves it, in a thread of its own, and leaves the block last.
    """

    def __init__(self, *, group: dist.ProcessGroup | None = None) -> None:
        self.group = member(group)
        serves, port = self.group.rank() == 0, [0]
        if serves:
            self.store = compat.TCPStore("127.0.0.1", 0, None, True, PATIENCE, wait_for_workers=False)
            port = [self.store.port]
        dist.broadcast_object_list(port, group=self.group, group_src=0)
        if not serves:
            self.store = compat.TCPStore("127.0.0.1", port[0], None, False, PATIENCE, wait_for_workers=False)

    def __enter__(self) -> "Counters":
        return self

    def __exit__(self, *raised: Any) -> None:
        if raised[0] is None:
            dist.barrier(group=self.group)

    def take(self, name: str) -> int:
        """The next number, from 0; no other rank gets the same."""
        return self.store.add(name, 1) - 1


def work_queue(
    items: int, counters: Counters, *, name: str = "queue", pieces: Callable[[int, int], Pieces] = singles
) -> Iterator[int]:
    """This rank's items, each when it is asked for; over all ranks every item comes once.

    Args:
        items: how many there are; put the longest first, and the end is more even.
        counters: what the ranks share.
        name: of the queue; a name serves once.
        pieces: how items are cut into pieces.
    """
    cut = pieces(items, counters.group.size())
    while (number := counters.take(name)) < len(cut):
        yield from cut[number]


def predicted(
    costs: Sequence[float], unit_s: Sequence[float], pieces: Callable[[int, int], Pieces] = singles
) -> tuple[list[list[int]], list[float]]:
    """What a queue gives where requests take no time: who is free first takes the next piece.

    Args:
        costs: units of work of each item.
        unit_s: how long each rank takes for a unit.
        pieces: how items are cut into pieces.

    Returns:
        The items of each rank, and when each rank is done.
    """
    free, taken = [(0.0, rank) for rank in range(len(unit_s))], [[] for _ in unit_s]
    for piece in pieces(len(costs), len(unit_s)):
        now_s, rank = free[0]
        taken[rank] += piece
        heapq.heapreplace(free, (now_s + unit_s[rank] * sum(costs[item] for item in piece), rank))
    return taken, [now_s for now_s, _ in sorted(free, key=lambda one: one[1])]
