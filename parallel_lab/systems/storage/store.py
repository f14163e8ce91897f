"""One small interface to bytes by key, whatever lies behind it: a folder, an object store, memory.

The interface is what an object store offers and no more. An object is written whole and appears whole; it is read whole
or in a range; keys are listed by prefix, in order; there is no rename, no append and no lock. A file system offers
more, and what only it offers would tie the training program to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable


class Missing(KeyError):
    """There is no object of this key."""

    def __str__(self) -> str:
        return f"there is no object {self.args[0]!r}"


class Refused(PermissionError):
    """The store does not know who asks: a wrong key or secret."""


class Store(ABC):
    """Bytes by key. Keys are parts joined by `/`, none of them empty, `.` or `..`; every store refuses others."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Writes an object whole: a reader sees all of the old one or all of the new one."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            Missing: there is none.
        """

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes:
        """The bytes from `start` on: `length` of them, or fewer where the object ends.

        Raises:
            Missing: there is none.
            ValueError: `start` is negative or not inside the object, or `length` is below 1.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, in the order of their UTF-8 bytes."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes an object; nothing happens where there is none."""

    def close(self) -> None:  # noqa: B027 (most stores hold nothing open)
        """Gives back what the store holds open."""


class Memory(Store):
    """Objects in this process: what a reader that waits for nothing would give."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        """Keeps a copy."""
        self.objects[checked(key)] = bytes(data)

    def get(self, key: str) -> bytes:
        """The object itself: bytes do not change."""
        try:
            return self.objects[checked(key)]
        except KeyError:
            raise Missing(key) from None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """A copy of the range."""
        data = self.get(key)
        check_range(key, start, length, len(data))
        return data[start : start + length]

    def list(self, prefix: str = "") -> list[str]:
        """Sorted at each call."""
        return in_order(key for key in self.objects if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Forgets it."""
        self.objects.pop(checked(key), None)


def in_order(keys: Iterable[str]) -> list[str]:
    """Keys in the order of their UTF-8 bytes, which is S3's."""
    return sorted(keys, key=lambda key: key.encode())


def checked(key: str) -> str:
    """The key itself.

    Raises:
        ValueError: a part of it is empty, `.` or `..`, or it holds a zero byte.
    """
    if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r} is no key: expected parts joined by '/', none of them empty, '.' or '..'")
    return key


def check_range(key: str, start: int, length: int, size: float = float("inf")) -> None:
    """Checks a range against the size of its object.

    Raises:
        ValueError: it begins outside the object, or has no length.
    """
    if start < 0 or length < 1 or start >= size:
        raise ValueError(f"{key}: no range of {length} bytes from {start} on: the object has {size} bytes")
