"""Readers that keep a rank fed: shards fetched ahead by several threads, over a network that may be emulated.

A request takes its latency and the time of its bytes. One reader waits for the latency each time; several have their
requests under way together, until the link is full. Fetching ahead moves all of it beside the rank's computing: the
rank waits only where a shard is fetched more slowly, in the long run, than it is used up.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from parallel_lab.network import Link
from parallel_lab.systems.storage.prefetch import Prefetcher
from parallel_lab.systems.storage.store import Store

T = TypeVar("T")


class Far(Store):
    """A store behind an emulated link, at one end of which this process sits.

    What is read or written holds the link's port for `link.occupancy_s` of its bytes and is there `link.seconds` after
    it had the port; what the store itself takes counts within that. So with `gap_s=0` the latencies of parallel
    requests overlap and their bytes follow one another. Lists and deletes cost a latency. Each process has a port of
    its own, as each node has.

    Args:
        store: what lies behind.
        link: its latency is that of a request and its answer.
    """

    def __init__(self, store: Store, link: Link) -> None:
        self.store, self.link = store, link
        self.lock, self.free_s = threading.Lock(), 0.0

    def __reduce__(self):
        return Far, (self.store, self.link)

    def put(self, key: str, data: bytes) -> None:
        """The bytes go out."""
        began_s = time.monotonic()
        self.store.put(key, data)
        self._wait(began_s, len(data))

    def get(self, key: str) -> bytes:
        """The bytes come in."""
        began_s = time.monotonic()
        data = self.store.get(key)
        self._wait(began_s, len(data))
        return data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Only the bytes of the range come in."""
        began_s = time.monotonic()
        data = self.store.get_range(key, start, length)
        self._wait(began_s, len(data))
        return data

    def list(self, prefix: str = "") -> list[str]:
        """A latency."""
        began_s = time.monotonic()
        keys = self.store.list(prefix)
        self._wait(began_s, 0)
        return keys

    def delete(self, key: str) -> None:
        """A latency."""
        began_s = time.monotonic()
        self.store.delete(key)
        self._wait(began_s, 0)

    def close(self) -> None:
        """The store's."""
        self.store.close()

    def _wait(self, began_s: float, size_bytes: int) -> None:
        """Sleeps until the link would have brought the bytes of a request that began then."""
        with self.lock:
            begins_s = max(began_s, self.free_s)
            self.free_s = begins_s + self.link.occupancy_s(size_bytes)
        left_s = begins_s + self.link.seconds(size_bytes) - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)


def of_rank(shards: Sequence[str], rank: int, ranks: int) -> list[str]:
    """The shards of a rank: every n-th. Each shard belongs to one rank, and two ranks differ by one shard at most."""
    return list(shards[rank::ranks])


def fetched(store: Store, shards: Iterable[str], *, readers: int = 4, ahead: int = 8) -> Prefetcher:
    """The shards' bytes in their order, `readers` of them fetched at a time, up to `ahead` before their turn."""
    return Prefetcher(shards, store.get, threads=readers, ahead=ahead)


def unpacked(shards: Iterable[bytes], unpack: Callable[[bytes], Iterable[T]], batch: int) -> Iterator[list[T]]:
    """Batches of samples out of shards; a batch may begin in one shard and end in the next. The last may be smaller."""
    held: list[T] = []
    for shard in shards:
        for sample in unpack(shard):
            held.append(sample)
            if len(held) == batch:
                yield held
                held = []
    if held:
        yield held


def read_ranges(store: Store, key: str, size: int, *, part_bytes: int = 8 * 2**20, readers: int = 4) -> bytes:
    """One large object in ranges, `readers` of them at a time: as a checkpoint is read.

    Args:
        store: where it lies.
        key: its key.
        size: its bytes.
        part_bytes: of a range.
        readers: how many requests are under way at once.

    Raises:
        ValueError: the object is shorter than that.
    """
    starts = range(0, size, part_bytes)
    with ThreadPoolExecutor(readers) as pool:
        parts = pool.map(lambda start: store.get_range(key, start, min(part_bytes, size - start)), starts)
        data = b"".join(parts)
    if len(data) != size:
        raise ValueError(f"{key}: {len(data)} bytes, expected {size}")
    return data
