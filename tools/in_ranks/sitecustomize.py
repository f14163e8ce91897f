"""Notes which lines of the technique rooms run, in every process that has this folder on its path.

Python imports a module of this name as it starts. `tools/measure.py` puts the folder on the path of pytest, which hands
it on to the fork server, and the ranks are its forks. They end by `os._exit`, so the lines are written before that.
A process is traced from its first import of a technique on, so that loading torch and forking cost nothing more.
coverage could do this itself (`patch = _exit, fork, subprocess`), but it took 80 ms of processor time a rank, as it
looks at every file of torch anew; this takes 4. What becomes of the lines is coverage's again: see `run_tests.py`.
"""

import atexit
import importlib
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import CodeType, FrameType

FOLDER = "PARALLEL_LAB_LINES"  # where the lines go; what is measured stands in ROOMS, separated by colons
ROOMS = "PARALLEL_LAB_LINES_OF"
MOST_CALLS = 20  # of a function are looked at in a process: a line that none of them runs counts as not run
_rooms: tuple[str, ...] = ()
_others: set[str] = set()  # files of no room that is measured
_calls: Counter[CodeType] = Counter()
_left: dict[CodeType, set[int]] = {}  # lines of each function that was called which did not run yet
_exit = os._exit


def _on_call(frame: FrameType, _event: str, _argument: object):
    code = frame.f_code
    if code.co_filename in _others:
        return None
    if not code.co_filename.startswith(_rooms):
        _others.add(code.co_filename)
        return None
    if code not in _left:
        _left[code] = _lines(code)
    _calls[code] += 1
    return _on_line if _left[code] and _calls[code] <= MOST_CALLS else None


def _on_line(frame: FrameType, event: str, _argument: object):
    if event == "line":
        _left[frame.f_code].discard(frame.f_lineno)
    return _on_line


def _lines(code: CodeType) -> set[int]:
    return {line for _, _, line in code.co_lines() if line}


def write() -> None:
    """Writes the lines that have run so far, and notes no more."""
    sys.settrace(None)
    ran: dict[str, set[int]] = {}
    for code, left in list(_left.items()):
        ran.setdefault(code.co_filename, set()).update(_lines(code) - left)
    if ran:
        text = json.dumps({name: sorted(lines) for name, lines in ran.items()}) + "\n"
        file = os.open(os.path.join(os.environ[FOLDER], f"{os.getpid()}.jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, text.encode())
        os.close(file)


def _write_and_exit(status: int) -> None:
    if FOLDER in os.environ:  # a rank has the environment of its kernel, and a test may have emptied it
        write()
    _exit(status)


def start() -> None:
    """Notes lines from now on, in threads that start later too."""
    threading.settrace(_on_call)
    sys.settrace(_on_call)


class _AtTheFirstImport(MetaPathFinder):
    """Finds nothing, but is asked first: starts noting once a package that is measured is about to be loaded."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        if any(os.path.join(folder, fullname.rpartition(".")[2]) in _rooms for folder in path or ()):
            sys.meta_path.remove(self)
            os.register_at_fork(after_in_child=_left.clear)
            start()


if FOLDER in os.environ and ROOMS in os.environ:
    _rooms = tuple(os.environ[ROOMS].split(os.pathsep))
    os._exit = _write_and_exit  # pyright: ignore[reportAttributeAccessIssue]
    atexit.register(write)
    sys.meta_path.insert(0, _AtTheFirstImport())
    if "parallel_lab.runtime.kernel.server" in sys.orig_argv:
        importlib.import_module("pytest")  # functions of tests use it: without this each rank would load it
