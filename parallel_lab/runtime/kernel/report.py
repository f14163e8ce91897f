"""Errors of ranks in the learner's words: their own tracebacks with the cell's lines, and who waits for whom."""

import linecache
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import groupby

from parallel_lab.network import Link, ring_cost
from parallel_lab.runtime.errors import Deadlock, RankFailed, Stopped, TimedOut
from parallel_lab.runtime.kernel.diagnose import State, describe, dropped, hopeless, mismatch, verdict
from parallel_lab.runtime.kernel.watch import Watch
from parallel_lab.runtime.rank.calls import Call, hidden
from parallel_lab.runtime.rank.main import Failure

_PLACE = re.compile(r"(\S*[/\\]\S+|<\S+>):(\d+)")
_ABOVE = os.path.abspath(__file__).removesuffix(os.path.join("parallel_lab", "runtime", "kernel", "report.py"))
_NO_MEMORY = re.compile(r"MemoryError|can't allocate memory|out of memory")
QUIET_S, QUIET_SHARE = 1.0, 0.25  # so long, or for this share of the timeout, nothing was called: no more progress
BUSY_SHARE = 0.1  # of a processor; to answer the kernel takes less
LONG_SHARE = 0.1  # of the whole time: a call that takes longer over the link is worth its arithmetic


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
        lines += [f"Before that {places(lost)}." for lost in [dropped(states)] if lost]
    lines += [f"rank {r} {f.words}" for r, f in own.items() if r != first]
    lines += [places(describe(r, s)) for r, s in states.items() if r not in own and not s.finished]
    if any(_NO_MEMORY.search(each.text) for each in _chain(root)):
        lines.append("It ran out of memory: use fewer ranks or smaller tensors, or raise memory_bytes if you set it.")
    elif "when memory runs out" in root.text:
        lines.append("Look at the memory that the ranks need together.")
    return RankFailed("\n".join(lines), first, root.type, {r: f.words for r, f in own.items()})


def hang(watch: Watch, timeout_s: float, standing: bool = False) -> Deadlock | TimedOut:
    """The error to raise when time is up, when no rank can ever go on, or when they have stood still too long."""
    window_s, did = (0.0, {}) if watch.stuck or standing else watch.last_second()
    states = watch.states if watch.stuck else watch.ask_states()
    calling = time.monotonic() - watch.acted_s < max(QUIET_S, QUIET_SHARE * timeout_s)
    computing = any(processor_s > BUSY_SHARE * window_s for _, processor_s, _ in did.values())
    carrying = _carried(watch, states)
    going = did and (calling or computing or carrying) and not (mismatch(states) or hopeless(states))
    late = sum(not s.finished for s in states.values())
    why = "can never finish" if watch.stuck else f"had not finished after {timeout_s:g} s"
    why = f"were still going after {timeout_s:g} s" if going else why
    lines = [f"{late} of {len(states)} ranks {why} and were ended."]
    if going:
        lines += [f"In the last {window_s:.1f} s {_did(rank, *each)}." for rank, each in did.items()]
        lines += [f"Progress: {text}." for text in [_pace(watch)] if text]
        lines.append("Still under way:")
    lines += [places(describe(rank, state)) for rank, state in states.items()]
    if not going:
        lines.append("What is wrong: " + places(verdict(states)) + ".")
    elif not calling and not carrying:
        lines.append("Nothing was called in this time: " + places(verdict(states)) + ".")
    if going:
        lines += [carrying + "."] if carrying else []
        lines.append(
            f"It needed more time than timeout={timeout_s:g}: give it more, launch(..., timeout={_more(watch)})."
        )
    idle = [rank for rank, state in states.items() if state.waiting is None]
    return (TimedOut if going else Deadlock)("\n".join(lines), idle[0] if len(idle) == 1 and not going else -1)


def stopped(watch: Watch) -> Stopped:
    """What to raise when the learner has pressed Stop: after how long, at which step, where each rank stands."""
    seconds, pace = time.monotonic() - watch.began_s, _pace(watch)
    lines = [f"stopped by you after {seconds:.1f} s" + (f", at {pace}." if pace else ".")]
    lines += [places(describe(rank, state)) for rank, state in watch.ask_states().items()]
    return Stopped("\n".join(lines))


def _did(rank: int, calls: int, processor_s: float, total: int) -> str:
    return f"rank {rank} made {calls:,} calls ({total:,} in all) and computed for {processor_s:.2f} s"


def _pace(watch: Watch) -> str:
    """How far the slowest rank has come, as its `progress(...)` says; empty where it says nothing."""
    if not watch.progress:
        return ""
    label, done, total = min(watch.progress.values(), key=lambda each: each[1])
    return f"{label or 'step'} {done:,}" + (f" of {total:,}" if total else "")


def _more(watch: Watch) -> str:
    """A time that is enough at the present pace, where the ranks tell their progress; else ten times as much."""
    seconds = time.monotonic() - watch.began_s
    shares = [done / total for _, done, total in watch.progress.values() if total and done]
    return f"{float(f'{1.5 * seconds / min(shares):.1g}') if shares else float(f'{10 * seconds:.1g}'):g}"


def _carried(watch: Watch, states: Mapping[int, State]) -> str:
    """How long the longest call in which a rank waits takes over the emulated link, with the arithmetic."""
    if not (link := watch.link):
        return ""
    waits = [(rank, state.waiting) for rank, state in states.items()]
    found = [(*_over(link.among(_meeting(rank, call)), call), call) for rank, call in waits if call]
    seconds, sum_, call = max(found, key=lambda each: each[0], default=(0.0, "", None))
    if call is None or seconds < LONG_SHARE * (time.monotonic() - watch.began_s):
        return ""
    return f"Over this link one {call.kind} of {call.bytes:,} bytes needs {sum_} = {seconds:,.4g} s"


def _meeting(rank: int, call: Call) -> tuple[int, ...]:
    """The ranks between which the bytes of a call of `rank` move."""
    return call.ranks if call.collective or call.peer < 0 else (rank, call.peer)


def _over(link: Link, call: Call) -> tuple[float, str]:
    """The seconds of a call over `link`, and how they come about."""
    n, latency = len(call.ranks), f"{link.latency_s:g} s"
    if not call.collective:
        return link.seconds(call.bytes), f"{latency} + {call.bytes:,} bytes / {link.bytes_per_s:,g} bytes/s"
    cost = ring_cost(call.kind, n, call.bytes)
    times = f"2(n-1) = {cost.rounds}" if cost.rounds == 2 * (n - 1) else f"n-1 = {cost.rounds}"
    one = f"({latency} + {cost.round_bytes:,.0f} bytes / {link.bytes_per_s:,g} bytes/s)"
    return cost.seconds(link), f"{times} rounds of S/n bytes, {cost.rounds} x {one}"


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


def _chain(told: Failure) -> Iterator[Failure]:
    """A failure, what led to it, and so on."""
    yield told
    if told.cause:
        yield from _chain(told.cause)


def _traceback(told: Failure) -> str:
    """The learner's part of a traceback, with source lines from this process, which has the cells."""
    lines = []
    for (file, number, where), same in groupby([f for f in told.frames if not hidden(f[0])] or told.frames):
        lines.append(f"  {_file(file)}, line {number}, in {where}\n    {linecache.getline(file, number).strip()}")
        if more := len(list(same)) - 1:
            lines.append(f"  and the same {more} times more")
    members = [f"\nmember {n} of {told.type}:\n{_traceback(each)}" for n, each in enumerate(told.members, 1)]
    said = told.text.replace(_ABOVE, "")  # C++ errors name files of this package by their whole path
    text = "\n".join([*lines, said]) + "".join(members)
    if not told.cause:
        return text
    led = "which led to:" if told.caused else "and while this was handled:"
    return f"{_traceback(told.cause)}\n{led}\n{text}"
