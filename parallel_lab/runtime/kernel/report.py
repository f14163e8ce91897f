"""Errors of ranks in the learner's words: their own tracebacks with the cell's lines, and who waits for whom."""

import linecache
import os
import re
import sys
from itertools import groupby

from parallel_lab.runtime.errors import Deadlock, RankFailed
from parallel_lab.runtime.kernel.diagnose import describe, mismatch, verdict
from parallel_lab.runtime.kernel.watch import Watch
from parallel_lab.runtime.rank.calls import hidden
from parallel_lab.runtime.rank.main import Failure

_PLACE = re.compile(r"(\S*[/\\]\S+|<\S+>):(\d+)")
_NO_MEMORY = re.compile(r"MemoryError|can't allocate memory|out of memory")


def failure(watch: Watch) -> RankFailed:
    """The error to raise when a rank failed: the first that did so of its own, with its traceback."""
    states = watch.ask_states()
    failed = {r: p.failed for r, p in enumerate(watch.peers) if p.failed and (p.fatal or not watch.fatal)}
    own = {r: f for r, f in failed.items() if not f.lost} or failed
    first = min(own, key=lambda rank: own[rank].at_s)
    root = own[first]
    lines = [f"rank {first} failed:" if root.frames else f"rank {first} {root.words}."]
    if root.type in ("RuntimeError", "killed") and (wrong := mismatch(states)):
        lines.append(f"The cause: {places(wrong)}.")
    if root.frames:
        lines.append(_traceback(root))
    lines += [f"rank {r} {f.words}" for r, f in own.items() if r != first]
    lines += [places(describe(r, s)) for r, s in states.items() if r not in own and not s.finished]
    if _NO_MEMORY.search(root.text):
        lines.append("It ran out of memory: use fewer ranks or smaller tensors, or raise memory_bytes if you set it.")
    elif "when memory runs out" in root.text:
        lines.append("Look at the memory that the ranks need together.")
    return RankFailed("\n".join(lines), first, root.type, {r: f.words for r, f in own.items()})


def hang(watch: Watch, timeout_s: float) -> Deadlock:
    """The error to raise when time is up, or when no rank can ever go on."""
    states = watch.states if watch.stuck else watch.ask_states()
    late = sum(not s.finished for s in states.values())
    why = "can never finish" if watch.stuck else f"had not finished after {timeout_s:g} s"
    lines = [f"{late} of {len(states)} ranks {why} and were ended."]
    lines += [places(describe(rank, state)) for rank, state in states.items()]
    lines.append("What is wrong: " + places(verdict(states)) + ".")
    idle = [rank for rank, state in states.items() if state.waiting is None]
    return Deadlock("\n".join(lines), idle[0] if len(idle) == 1 else -1)


def places(text: str) -> str:
    """`text` with each `file:number` followed by the source of that line; a cell is named as notebooks name it."""

    def readable(match: re.Match) -> str:
        source = linecache.getline(match[1], int(match[2])).strip()
        return f"{place(match[0])}: `{source}`" if source else place(match[0])

    return _PLACE.sub(readable, text)


def place(line: str) -> str:
    """`file:number` as a reader knows it: `In[3], line 16`, `train.py, line 16`; empty where it is."""
    file, _, number = line.rpartition(":")
    return f"{_file(file)}, line {number}" if file else line


def _file(path: str) -> str:
    """A file by its last name; a notebook's cell as `In[7]`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    names = getattr(getattr(shell, "compile", None), "_filename_map", {})
    return f"In[{names[path]}]" if path in names else os.path.basename(path)


def _traceback(told: Failure) -> str:
    """The learner's part of a traceback, with source lines from this process, which has the cells."""
    lines = []
    for (file, number, where), same in groupby([f for f in told.frames if not hidden(f[0])] or told.frames):
        lines.append(f"  {_file(file)}, line {number}, in {where}\n    {linecache.getline(file, number).strip()}")
        if more := len(list(same)) - 1:
            lines.append(f"  and the same {more} times more")
    members = [f"\nmember {n} of {told.type}:\n{_traceback(each)}" for n, each in enumerate(told.members, 1)]
    text = "\n".join([*lines, told.text]) + "".join(members)
    if not told.cause:
        return text
    led = "which led to:" if told.caused else "and while this was handled:"
    return f"{_traceback(told.cause)}\n{led}\n{text}"
