"""Work stealing: each rank begins with a share of its own, and who has nothing left takes from another's end.

Blumofe and Leiserson 1999, "Scheduling multithreaded computations by work stealing": a rank works at the front of its
own deque; a thief picks a victim at random and takes from the back. Here the thief takes half of what is left, since
items are small and a request between machines is not.

In a queue all ranks write one counter. Here each rank has a deque of its own, and asks others only when it has no item
left. A deque is two numbers, `front back`, under one name in a store. Taking and stealing are both `compare_set`: write
the new pair if the old one still stands. Of two that want the same item one succeeds, and the other looks again; no
rank needs a lock, and a rank that dies holds none. `compare_set` returns what stands afterwards, and two thieves that
want the same half would both find there what they wanted. So a deque also bears who wrote it, and for which time.

Here one store serves all deques, which saves no request. Between machines a deque stands in its owner's memory.

An item never comes back, so a rank is done when every deque is empty. One that a thief has taken and not written down
yet is the thief's: others may end before it does, and every item is still done once.
"""

import random
from collections.abc import Iterator, Sequence

import torch.distributed as dist

from parallel_lab.systems.balance.shares import bounds
from parallel_lab.systems.balance.work_queue import Counters


class Deques:
    """The deques of all ranks, over items 0, 1, ...: rank r begins with the r-th share of them.

    Attributes:
        asked: how many requests to the store it took.
    """

    def __init__(self, shares: Sequence[int], counters: Counters, *, name: str = "deque") -> None:
        self.store, self.name, self.rank = counters.store, name, counters.group.rank()
        self.ranks = range(counters.group.size())
        self.dice = random.Random(self.rank)
        self.asked = self.writes = 0
        self._write(*bounds(shares)[self.rank])
        dist.barrier(group=counters.group)  # nobody looks for a deque that is not there yet

    def __iter__(self) -> Iterator[int]:
        """This rank's items, each when it is asked for; over all ranks every item comes once."""
        while True:
            while (item := self._pop()) is not None:
                yield item
            if not self._steal():
                return

    def _key(self, rank: int) -> str:
        return f"{self.name} {rank}"

    def _named(self, front: int, back: int) -> str:
        """What this rank writes; no other rank ever writes the same, and this one only once."""
        self.writes += 1
        return f"{front} {back} {self.rank} {self.writes}"

    def _write(self, front: int, back: int) -> None:
        """Fills this rank's own deque; it is empty, so nobody else writes it."""
        self.asked += 1
        self.store.set(self._key(self.rank), self._named(front, back))

    def _read(self, rank: int) -> tuple[str, int, int]:
        """What stands there, and the numbers in it."""
        self.asked += 1
        stands = self.store.get(self._key(rank)).decode()
        front, back, *_ = map(int, stands.split())
        return stands, front, back

    def _swap(self, rank: int, old: str, front: int, back: int) -> bool:
        """Replaces what stood there if it still does."""
        self.asked += 1
        wanted = self._named(front, back)
        return self.store.compare_set(self._key(rank), old, wanted).decode() == wanted

    def _pop(self) -> int | None:
        """The item at the front of this rank's own deque."""
        while True:
            stands, front, back = self._read(self.rank)
            if front >= back:
                return None
            if self._swap(self.rank, stands, front + 1, back):
                return front

    def _steal(self) -> bool:
        """Takes half of a victim's items, from their back; False where all deques are empty."""
        victims = [rank for rank in self.ranks if rank != self.rank]
        self.dice.shuffle(victims)
        return any(self._steal_from(victim) for victim in victims)

    def _steal_from(self, victim: int) -> bool:
        while True:
            stands, front, back = self._read(victim)
            if front >= back:
                return False
            cut = back - -(-(back - front) // 2)
            if self._swap(victim, stands, front, cut):
                self._write(cut, back)
                return True
