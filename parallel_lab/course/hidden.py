"""Numbers that a rank holds outside tensors: in lists, strings, arrays and buffers of any kind.

Who is asked to hold 1/n of the state may be tempted to put the rest where a count of tensors does not look. So every
number is counted at what it would take in a tensor, wherever it lies, if Python can reach it. Files, sockets and other
processes are refused by `side_doors`. Not seen: what only C++ or the frame of a running thread holds.
"""

import array
import ctypes
import gc
import io
import sys
import types
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from parallel_lab.trace import Sample, Span

FLOAT_BYTES = 8
SMALL_BYTES = 1000  # strings and buffers below are code and names
WORD_BITS = 32  # integers below are sizes, ranks and indices
_BUFFERS = (bytes, bytearray, array.array, ctypes.Array)
_DOCUMENTED = (types.FunctionType, types.ModuleType, type)
_TEXTS = (str, io.BytesIO, io.StringIO)
# What a learner's function reaches through classes and functions of these is not the learner's.
_ELSEWHERE = {*sys.stdlib_module_names, "torch", "numpy", "parallel_lab"} - {"__main__"}


class Hidden(NamedTuple):
    """`bytes` of numbers outside tensors, most of them in objects of the class called `kind`."""

    bytes: int
    kind: str


class Watch:
    """Counts the numbers outside tensors that came to be since it was made.

    `fn` is the learner's function: what it can reach by its names may be older than what `gc.freeze` left out.
    """

    def __init__(self, fn: Any) -> None:
        self._rooms = list(_belongings(fn))
        self._before = self._count()

    def look(self) -> Hidden:
        """What is hidden now; less than `SMALL_BYTES` is learning rates, steps and sizes, and counts as nothing."""
        found = self._count() - self._before
        if found.total() < SMALL_BYTES:
            return Hidden(0, "")
        return Hidden(found.total(), max(found, key=lambda kind: found[kind]))

    def _count(self) -> Counter[str]:
        """Bytes by the name of the class that holds them."""
        sizes: dict[int, tuple[str, int]] = {}
        todo = [each for each in gc.get_objects() if type(each) not in (Span, Sample)] + self._rooms
        documentation = {id(each.__doc__) for each in todo if issubclass(type(each), _DOCUMENTED)}
        while todo:
            referents = gc.get_referents(*todo)
            for each in map(_owner, chain(todo, referents)):
                if id(each) not in documentation and (size := _own_bytes(each)):
                    sizes[id(each)] = type(each).__name__, size
            # The collector does not track a dict or a tuple of plain values, so they are not among its objects.
            todo = [each for each in referents if type(each) in (dict, tuple) and not gc.is_tracked(each)]
        found: Counter[str] = Counter()
        for kind, size in sizes.values():
            found[kind] += size
        return found


def _owner(each: Any) -> Any:
    """The object whose memory `each` is a view of; a NumPy array does not tell the collector."""
    while issubclass(type(each), np.ndarray) and each.base is not None:
        each = each.base
    return each


def _own_bytes(each: Any) -> int:
    """What the numbers in `each` itself, and not in what it refers to, would take in a tensor; of a tensor nothing."""
    kind = type(each)  # and not isinstance(): lazy proxies would load what they stand for when asked for their class
    if issubclass(kind, float):
        return FLOAT_BYTES
    if issubclass(kind, int):
        return each.bit_length() // 8 if each.bit_length() > WORD_BITS else 0
    if issubclass(kind, complex | np.generic):
        return 2 * FLOAT_BYTES
    size = 0
    if issubclass(kind, np.ndarray):
        size = each.nbytes
    elif issubclass(kind, _BUFFERS):
        size = memoryview(each).nbytes
    elif issubclass(kind, _TEXTS):
        size = sys.getsizeof(each)
    return size if size > SMALL_BYTES else 0


def _belongings(fn: Any) -> Iterator[Any]:
    """What can be reached from `fn`, but not through modules, nor through classes and functions of others."""
    seen: set[int] = set()
    todo = [fn]
    while todo:
        each = todo.pop()
        if id(each) in seen or _is_foreign(each):
            continue
        seen.add(id(each))
        yield each
        todo += gc.get_referents(each)


def _is_foreign(each: Any) -> bool:
    kind = type(each)
    home = getattr(each, "__module__", None) if issubclass(kind, type | types.FunctionType) else None
    return issubclass(kind, types.ModuleType) or (isinstance(home, str) and home.partition(".")[0] in _ELSEWHERE)
