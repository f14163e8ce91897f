"""Kills a process that saves, at each call that changes the disk, and looks at what is left.

The saving function runs in a forked child in which the calls of Python that change files (opening to write, write,
fsync, rename, unlink, mkdir, and so on) count themselves. At call number i the child ends itself by SIGKILL: before the
call, or for a write also after half of the bytes. So nothing is tidied up, as if the machine's memory had run out or a
scheduler had lost its patience. Then another child, in which nothing is changed, loads, and says which step it found.

    a saving that survives      loads the old step or the new one, whole, at every point

`torch.save` to a path writes from C++, past Python; in the child it writes through a file that is opened here.

A kill tests the order of calls, and no more. What was handed to the operating system survives a kill, whether it was
synced or not, so no kill finds a missing fsync: `recorded` gives the calls in their order, to look for them there.
"""

import builtins
import io
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

PLAIN = "mkdir", "rmdir", "rename", "replace", "unlink", "remove", "link", "symlink", "truncate", "ftruncate", "fsync"
WRITES = "write", "half a write"
CHANGING = set("wax+")


class Call(NamedTuple):
    """One call that changes the disk.

    Attributes:
        kind: The call, as `rename`; `half a write` is a write of which half of the bytes go.
        names: The files, without their folders.
    """

    kind: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {' -> '.join(self.names)}".strip()


class Point(NamedTuple):
    """What a kill at one call has left.

    Attributes:
        number: Of the call, from 0.
        call: Before or in which the process was killed.
        found: The result of loading, or the words of its error.
        survived: Whether it is one of those expected.
    """

    number: int
    call: Call
    found: Any
    survived: bool


class Counter:
    """Counts the calls of this process, and ends it at one of them."""

    def __init__(self, deadly: int = -1) -> None:
        self.calls: list[Call] = []
        self.deadly, self.names = deadly, {}

    def reach(self, kind: str, *files: Any) -> None:
        """A call is about to be made."""
        self.calls.append(Call(kind, tuple(self._name(each) for each in files)))
        if len(self.calls) - 1 == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, file: Any, data: Any, put: Callable[[Any], int]) -> int:
        """A write: a point before it, and one when half of it is done."""
        self.reach("write", file)
        self.calls.append(Call("half a write", (self._name(file),)))
        if len(self.calls) - 1 == self.deadly:
            put(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return put(data)

    def _name(self, file: Any) -> str:
        if isinstance(file, int):
            with suppress(OSError):
                return Path(os.readlink(f"/proc/self/fd/{file}")).name
            return ""
        return os.path.basename(os.fspath(file))

    def install(self) -> None:
        """Has this process count; it must be one that ends afterwards."""
        plain = {name: getattr(os, name) for name in PLAIN}
        for name in PLAIN:
            setattr(os, name, self._counting(name, plain[name]))
        put, make = os.write, os.open
        os.write = lambda handle, data: self.write(handle, data, lambda part: put(handle, part))

        def open_descriptor(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self.reach("open", path)
            return make(path, flags, *rest, **named)

        os.open = open_descriptor
        builtins.open = io.open = self._open(builtins.open)
        save = torch.save

        def through_python(content: Any, to: Any, *rest: Any, **named: Any) -> None:
            if isinstance(to, str | os.PathLike):
                with open(to, "wb") as file:
                    save(content, file, *rest, **named)
            else:
                save(content, to, *rest, **named)

        torch.save = through_python

    def _counting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        files = 2 if name in ("rename", "replace", "link", "symlink") else 1

        def counted(*args: Any, **named: Any) -> Any:
            self.reach(name, *args[:files])
            return call(*args, **named)

        return counted

    def _open(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        counter = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                return counter.write(self.name, data, super().write)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
            if not CHANGING & set(mode) or isinstance(file, int):
                return plain(file, mode, buffering, *rest, **named)
            counter.reach("open", file)
            raw = Raw(file, mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            both = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return both if "b" in mode else io.TextIOWrapper(both, *rest, **named)

        return opened


def recorded(save: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> list[Call]:
    """The calls that `save` makes after `prepare`, in their order; both run in a child.

    Raises:
        RuntimeError: one failed, and its last line says how.
    """

    def body() -> list[Call]:
        prepare()
        counter = Counter()
        counter.install()
        save()
        return list(counter.calls)

    return _in_child(body)


def kill_everywhere(
    save: Callable[[Path], Any],
    load: Callable[[Path], Any],
    *,
    prepare: Callable[[Path], Any],
    where: Path,
    expected: Callable[[Any], bool],
    every: int = 1,
) -> Iterator[Point]:
    """What loading finds after a kill at each call of `save`, each time from a folder that `prepare` has made anew.

    Args:
        save: saves into the folder that it gets.
        load: loads from it.
        prepare: makes the folder what it is before the save; the folder is empty.
        where: an empty folder for all of this.
        expected: whether what was loaded is right.
        every: which points are tried, each or each second one and so on; the last one always.

    Yields:
        One point after the other, so that one may stop at the first that does not survive.

    Raises:
        RuntimeError: `prepare`, or `save` without a kill, failed.
    """
    dry = _folder(where, "dry")
    calls = recorded(lambda: save(dry), lambda: prepare(dry))
    for number in sorted({*range(0, len(calls), every), len(calls) - 1}):
        folder = _folder(where, str(number))
        _killed(lambda folder=folder: save(folder), lambda folder=folder: prepare(folder), number)
        try:
            found = _in_child(lambda folder=folder: load(folder))
            yield Point(number, calls[number], found, expected(found))
        except RuntimeError as error:
            yield Point(number, calls[number], str(error), False)


def _folder(where: Path, name: str) -> Path:
    (where / name).mkdir()
    return where / name


def _killed(save: Callable[[], Any], prepare: Callable[[], Any], number: int) -> None:
    """Has a child die at call `number` of `save`."""

    def body() -> None:
        prepare()
        Counter(number).install()
        save()

    with suppress(RuntimeError):
        _in_child(body)


def _in_child(body: Callable[[], Any]) -> Any:
    """What `body` returns in a forked child. What it prints goes nowhere."""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads; none is needed in the child
        child = os.fork()
    if child == 0:
        _child(body, ours, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        content = answer.read()
    os.waitpid(child, 0)
    if not content:
        raise RuntimeError("the process was killed")
    done, result = pickle.loads(content)
    if not done:
        raise RuntimeError(result)
    return result


def _child(body: Callable[[], Any], ours: int, theirs: int) -> None:
    """Never returns."""
    exit_now, put = os._exit, os.write
    try:
        os.close(ours)
        try:
            answer = True, body()
        except BaseException as error:
            answer = False, traceback.format_exception_only(error)[-1].split(". ")[0].strip()
        content = memoryview(pickle.dumps(answer))
        while content:
            content = content[put(theirs, content) :]
    finally:
        exit_now(0)
