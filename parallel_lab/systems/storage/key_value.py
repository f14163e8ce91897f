"""A cache in memory in front of a store, and how often it is asked for what it has.

A key-value server (Redis, memcached) answers from memory, for all nodes that ask. It forgets what was used least
recently when it is full, so it is a cache and no place for the only copy. Whether it helps is a matter of the order of
reading: what is read again soon (a tokenizer's files, an index, validation data) hits; an epoch that reads each shard
once finds none of them again before all others were read.
"""

import math
import socket
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from os import PathLike

from parallel_lab.systems.storage.store import Store, check_range, checked

redis = import_module("redis") if find_spec("redis") else None


class Cache(ABC):
    """Values by key that may be gone at the next look."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The value, or None where it is not there."""

    @abstractmethod
    def set(self, key: str, value: bytes) -> None:
        """Keeps a value as long as there is room."""

    @abstractmethod
    def drop(self, key: str) -> None:
        """Forgets a value."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""


class Redis(Cache):
    """A Redis server.

    Raises:
        ModuleNotFoundError: its client is not installed.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        if redis is None:
            raise ModuleNotFoundError("Redis's client is not installed: make storage")
        self.client = redis.Redis(unix_socket_path=str(path))

    def get(self, key: str) -> bytes | None:
        """GET."""
        return self.client.get(key)  # pyright: ignore[reportReturnType] (this client does not return awaitables)

    def set(self, key: str, value: bytes) -> None:
        """SET."""
        self.client.set(key, value)

    def drop(self, key: str) -> None:
        """DEL."""
        self.client.delete(key)

    def close(self) -> None:
        """Ends the connections."""
        self.client.close()


class Memcached(Cache):
    """A memcached server, spoken to in its text protocol: a line, and the bytes of the value. One thread at a time."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.socket, self.lock = socket.socket(socket.AF_UNIX), threading.Lock()
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rwb")

    def get(self, key: str) -> bytes | None:
        """`get`: VALUE with the size, the bytes, END; or END alone."""
        with self.lock:
            line = self._ask(b"get %s\r\n" % _name(key))
            if line == b"END":
                return None
            value = self.file.read(int(line.split()[3]))
            self.file.read(len(b"\r\nEND\r\n"))
            return value

    def set(self, key: str, value: bytes) -> None:
        """`set`, with no flags and no end of its life; one that is too large for the server is not kept."""
        with self.lock:
            self._ask(b"set %s 0 0 %d\r\n%b\r\n" % (_name(key), len(value), value))

    def drop(self, key: str) -> None:
        """`delete`."""
        with self.lock:
            self._ask(b"delete %s\r\n" % _name(key))

    def close(self) -> None:
        """Ends the connection."""
        self.file.close()
        self.socket.close()

    def _ask(self, request: bytes) -> bytes:
        self.file.write(request)
        self.file.flush()
        return self.file.readline().rstrip()


@dataclass
class Cached(Store):
    """A store that is asked only for what the cache does not have.

    A range is cut out of the whole object, which then is in the cache. What is written goes to the store, and the
    cache's copy is dropped. Another program that writes to the store itself leaves an old copy in the cache.

    Attributes:
        hits: how many reads the cache answered.
        misses: how many the store answered.
    """

    store: Store
    cache: Cache
    hits: int = 0
    misses: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of reads that the cache answered."""
        return self.hits / max(self.hits + self.misses, 1)

    def put(self, key: str, data: bytes) -> None:
        """To the store first: between the two the cache has the old object, as before."""
        self.store.put(key, data)
        self.cache.drop(key)

    def get(self, key: str) -> bytes:
        """From the cache, or from the store and into the cache."""
        value = self.cache.get(checked(key))
        if value is not None:
            self.hits += 1
            return value
        self.misses += 1
        value = self.store.get(key)
        self.cache.set(key, value)
        return value

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Cut out of the whole."""
        data = self.get(key)
        check_range(key, start, length, len(data))
        return data[start : start + length]

    def list(self, prefix: str = "") -> list[str]:
        """The store's: a cache cannot know what it does not have."""
        return self.store.list(prefix)

    def delete(self, key: str) -> None:
        """From the store, then from the cache."""
        self.store.delete(key)
        self.cache.drop(key)


def lru_hit_rate(reads: Iterable[object], slots: int) -> float:
    """The share of reads that a cache of `slots` objects answers, if it gives up what was used least recently."""
    held: OrderedDict[object, None] = OrderedDict()
    hits = total = 0
    for key in reads:
        total += 1
        hits += key in held
        held[key] = None
        held.move_to_end(key)
        if len(held) > slots:
            held.popitem(last=False)
    return hits / max(total, 1)


def che_hit_rate(popularity: Sequence[float], slots: int) -> float:
    """The same in the long run, for reads drawn independently: object i has share_i of them.

    An object that is read with rate share_i is still there if it was read within the characteristic time T_cache, with
    probability 1 - exp(-share_i T_cache); T_cache is where these sum to the slots. Che, Tung, Wang, "Hierarchical Web
    Caching Systems", IEEE JSAC 2002.

    Raises:
        ValueError: there are no slots.
    """
    if slots < 1:
        raise ValueError(f"{slots} slots: expected at least one")
    if slots >= len(popularity):
        return 1.0
    low, high = 0.0, 1.0
    while _held(popularity, high) < slots:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _held(popularity, middle) < slots else (low, middle)
    return sum(p * (1 - math.exp(-p * high)) for p in popularity) / sum(popularity)


def _held(popularity: Sequence[float], time: float) -> float:
    return sum(1 - math.exp(-p * time) for p in popularity)


def _name(key: str) -> bytes:
    """memcached's names have no spaces and at most 250 bytes."""
    name = checked(key).encode()
    if len(name) > 250 or any(byte <= 32 or byte == 127 for byte in name):
        raise ValueError(f"{key!r}: memcached takes no key of over 250 bytes or with spaces in it")
    return name
