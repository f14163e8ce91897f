"""A guard around learner code: no data leaves a rank but by messages of the process group.

Python announces files, sockets and child processes to audit hooks. What C++ does unasked is made to announce itself:
files of `torch.save` and `torch.from_file`, and the store that torch's rendezvous goes through. So are pipes and
files in memory, which could keep numbers outside the process's own memory.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch._C._distributed_c10d import Store

_DOORS = (
    "socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "mmap.__new__",
    "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.kill", "os.mkdir",
    "os.rename", "os.link", "os.symlink", "os.truncate", "os.remove", "os.rmdir", "os.utime", "os.chmod", "os.setxattr",
    "ctypes.dlopen", "sqlite3.connect", "os.pipe", "os.pipe2",
    "os.memfd_create", "store",
)  # fmt: skip
STORE_BYTES = 4000  # torch itself leaves some 150 there for each group that is made
_writable: list[str] = []


class SideDoor(RuntimeError):
    """Learner code tried to move data other than by messages of the process group."""


def allow_files(folder: str) -> None:
    """From now on learner code may write files in `folder`; for exercises about checkpoints."""
    _writable.append(os.path.join(os.path.abspath(folder), ""))


def close() -> list[str]:
    """From now on files opened for writing, sockets and child processes raise `SideDoor`, until the list is empty.

    An audit hook cannot be taken out again, and the threads of the process group never meet it: they are not Python.
    """
    inside = ["learner code"]
    sys.dont_write_bytecode = True  # an import inside learner code may read, and needs to write nothing

    def hook(event: str, arguments: tuple) -> None:
        if inside and (event in _DOORS or (event == "open" and _writes(arguments))) and not _allowed(event, arguments):
            what = f"{event}({arguments[0]!r})" if arguments else event
            raise SideDoor(f"{what}: data may leave a rank only by messages of the process group")

    sys.addaudithook(hook)
    _announce_files()
    _announce_store()
    return inside


def _announce_files() -> None:
    """Has what opens a path in C++ say so, as `open` does, and what opens a file without a path."""
    _before(torch._C, "PyTorchFileWriter", _written)
    for owner in (torch, torch.UntypedStorage):
        _before(owner, "from_file", _mapped)
    for name in filter(lambda name: hasattr(os, name), ("pipe", "pipe2", "memfd_create")):  # not on every system
        _before(os, name, partial(_say, f"os.{name}"))


def _say(event: str, *_, **__) -> None:
    sys.audit(event)


def _written(file: Any, *_, **__) -> None:
    if isinstance(file, str | os.PathLike):
        sys.audit("open", os.fspath(file), "wb", 0)


def _mapped(filename: Any, shared: Any = False, *_, **__) -> None:
    if shared:  # otherwise the file is read, and what is written to the tensor stays in this process
        _written(filename)


def _announce_store() -> None:
    """Has the store say so once this rank has left more in it than torch itself would."""
    left = [0]

    def put(_, *arguments, **options) -> None:
        left[0] += sum(_size(each) for each in (*arguments, *options.values()))
        if left[0] > STORE_BYTES:
            sys.audit("store", *arguments[:1])

    for name in ("set", "append", "add", "compare_set", "multi_set", "queue_push"):
        if hasattr(Store, name):  # torch 2.11 has fewer
            _before(Store, name, put)


def _size(value: Any) -> int:
    """Bytes of what is put into a store: text, bytes, numbers, or lists of them."""
    return sum(map(_size, value)) if isinstance(value, list | tuple) else len(value) if hasattr(value, "__len__") else 8


def _before(owner: Any, name: str, announce: Callable[..., None]) -> None:
    """Has `owner.name` call `announce` with its arguments first."""
    plain = cast(Callable, getattr(owner, name))

    def announced(*arguments, **options) -> Any:
        announce(*arguments, **options)
        return plain(*arguments, **options)

    setattr(owner, name, announced)


def _allowed(event: str, arguments: tuple) -> bool:
    """Whether all that `event` names lies in a folder of `allow_files`."""
    paths = arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]
    return bool(_writable and paths) and all(
        isinstance(path, str) and os.path.abspath(path).startswith(tuple(_writable)) for path in paths
    )


def _writes(arguments: tuple) -> bool:
    path, mode, flags = arguments
    if path == os.devnull:
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
