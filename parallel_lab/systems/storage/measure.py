"""Throughput and latency of reads and writes: how many bytes a second, and how long the slow ones took.

The median says what a request usually takes. The 99th percentile says what a step waits for: where each of 100 ranks
reads one shard, most steps meet it. Percentiles are of the requests that were made; 100 of them know no p99.9.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from parallel_lab.systems.storage.store import Store
from parallel_lab.trace.units import format_bytes, format_seconds


@dataclass(frozen=True)
class Measured:
    """What some requests took.

    Attributes:
        bytes: of all of them.
        wall_s: from the start of the first to the end of the last.
        latencies_s: of each, in the order in which they were asked for.
    """

    bytes: int
    wall_s: float
    latencies_s: tuple[float, ...]

    @property
    def bytes_per_s(self) -> float:
        """The throughput of all readers together."""
        return self.bytes / self.wall_s

    @property
    def requests_per_s(self) -> float:
        """Requests of all readers together."""
        return len(self.latencies_s) / self.wall_s

    def latency_s(self, percent: float) -> float:
        """A percentile of the latencies by nearest rank: the least of them that `percent` % do not exceed."""
        return percentile(self.latencies_s, percent)

    def __str__(self) -> str:
        p50, p99 = (format_seconds(self.latency_s(percent)) for percent in (50, 99))
        return f"{format_bytes(self.bytes_per_s)}/s, {self.requests_per_s:,.0f} requests/s, p50 {p50}, p99 {p99}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that `percent` % of them do not exceed.

    Raises:
        ValueError: there are no values, or the percentage is none.
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"the {percent}th percentile of {len(values)} values: expected some, and 0 to 100 %")
    rank = -(-len(values) * percent // 100)  # rounded up
    return sorted(values)[int(rank) - 1]


def measure(request: Callable[[Any], int], items: Iterable[Any], *, readers: int = 1) -> Measured:
    """Makes a request for each item, `readers` of them at a time; a request returns its bytes."""

    def timed(item: Any) -> tuple[int, float]:
        began_s = time.perf_counter()
        return request(item), time.perf_counter() - began_s

    began_s = time.perf_counter()
    if readers == 1:  # no thread between the request and the clock
        each = [timed(item) for item in items]
    else:
        with ThreadPoolExecutor(readers) as pool:
            each = list(pool.map(timed, items))
    wall_s = time.perf_counter() - began_s
    return Measured(sum(size for size, _ in each), wall_s, tuple(took_s for _, took_s in each))


def reads(store: Store, keys: Iterable[str], *, readers: int = 1) -> Measured:
    """Reads each object whole."""
    return measure(lambda key: len(store.get(key)), keys, readers=readers)


def writes(store: Store, keys: Iterable[str], size: int, *, writers: int = 1) -> Measured:
    """Writes objects of `size` random bytes, which no layer can compress or has seen before."""

    def write(pair: tuple[str, bytes]) -> int:
        store.put(*pair)
        return size

    return measure(write, [(key, os.urandom(size)) for key in keys], readers=writers)
