"""Errors of ranks in the learner's words: their own tracebacks with the cell's lines, and who waits for whom."""

import linecache
import os
import re
import signal
import sys
from itertools import groupby

from parallel_lab.runtime.errors import Deadlock, RankFailed
from parallel_lab.runtime.kernel.diagnose import State, describe, mismatch, verdict
from parallel_lab.runtime.kernel.peer import Peer, describe_end
from parallel_lab.runtime.kernel.watch import Watch
from parallel_lab.runtime.rank.calls import hidden

_PLACE = re.compile(r"(\S*[/\\]\S+|<\S+>):(\d+)")


def failure(watch: Watch) -> RankFailed:
    """The error to raise when a rank failed: the first that did so of its own, with its traceback."""
    states = watch.ask_states()
    failed = {r: p for r, p in enumerate(watch.peers) if p.lost and not (p.may_fail and watch.fatal)}
    own = {r: p for r, p in failed.items() if not (p.failed and p.failed["lost"])} or failed
    first = min(own, key=lambda rank: _moment(own[rank]))
    lines = [f"rank {first} {_headline(own[first])}"]
    if (wrong := mismatch(states)) and not _programming(own[first]):
        lines.append(f"The cause: {places(wrong)}.")
    if told := own[first].failed:
        lines.append(_traceback(told))
    lines += [f"rank {r} {describe_end(p)}" for r, p in own.items() if r != first]
    lines += [places(describe(r, s)) for r, s in states.items() if r not in own and not s.finished]
    if advice := _advice(own[first]):
        lines.append(advice)
    failures = {r: describe_end(p) for r, p in own.items()}
    return RankFailed("\n".join(lines), first, _cause(own[first]), failures)


def hang(watch: Watch, timeout_s: float) -> Deadlock:
    """The error to raise when time is up, or when no rank can ever go on."""
    states = watch.states if watch.stuck else watch.ask_states()
    late = sum(not s.finished for s in states.values())
    why = "can never finish" if watch.stuck else f"had not finished after {timeout_s:g} s"
    lines = [f"{late} of {len(states)} ranks {why} and were ended."]
    lines += [places(describe(rank, state)) for rank, state in states.items()]
    lines.append("What is wrong: " + places(verdict(states)) + ".")
    return Deadlock("\n".join(lines), _culprit(states))


def places(text: str) -> str:
    """`text` with each `file:number` followed by the source of that line; a cell is named as notebooks name it."""

    def readable(match: re.Match) -> str:
        source = linecache.getline(match[1], int(match[2])).strip()
        place = f"{_file(match[1])}, line {match[2]}"
        return f"{place}: `{source}`" if source else place

    return _PLACE.sub(readable, text)


def _file(path: str) -> str:
    """A file by its last name; a notebook's cell as `In[7]`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    names = getattr(getattr(shell, "compile", None), "_filename_map", {})
    return f"In[{names[path]}]" if path in names else os.path.basename(path)


def _traceback(told: dict) -> str:
    """The learner's part of a traceback, with source lines from this process, which has the cells."""
    frames = [frame for frame in told["frames"] if not hidden(frame[0])] or told["frames"]
    lines = [line for frame, same in groupby(frames) for line in _lines(frame, len(list(same)))]
    members = [f"\nmember {n} of {told['type']}:\n{_traceback(each)}" for n, each in enumerate(told["members"], 1)]
    text = "\n".join([*lines, told["text"]]) + "".join(members)
    if told["cause"]:
        led = "which led to:" if told["caused"] else "and while this was handled:"
        return f"{_traceback(told['cause'])}\n{led}\n{text}"
    return text


def _lines(frame: tuple[str, int, str], times: int) -> list[str]:
    """A frame of a traceback; one that calls itself is shown once."""
    file, number, where = frame
    shown = f"  {_file(file)}, line {number}, in {where}\n    {linecache.getline(file, number).strip()}"
    return [shown, f"  and the same {times - 1} times more"] if times > 1 else [shown]


def _headline(peer: Peer) -> str:
    return "failed:" if peer.failed else describe_end(peer) + "."


def _moment(peer: Peer) -> float:
    return peer.failed["at_s"] if peer.failed else peer.ended_s


def _programming(peer: Peer) -> bool:
    """Whether the failure is the learner's own exception, which needs no diagnosis of the communication."""
    return bool(peer.failed) and peer.failed["type"] != "RuntimeError"


def _cause(peer: Peer) -> str:
    if peer.failed:
        return "exit" if peer.failed["type"] == "SystemExit" else peer.failed["type"]
    return "killed" if (peer.code or 0) < 0 else "exit"


def _advice(peer: Peer) -> str:
    text = peer.failed["text"] if peer.failed else ""
    if "MemoryError" in text or "can't allocate memory" in text or "out of memory" in text:
        return "It ran out of memory: use fewer ranks or smaller tensors, or raise memory_bytes if you set it."
    if peer.died and peer.code == -signal.SIGKILL and not peer.kill:
        return "Look at the memory that the ranks need together."
    return ""


def _culprit(states: dict[int, State]) -> int:
    """The rank that others wait for, where it is only one."""
    idle = [rank for rank, state in states.items() if state.waiting is None]
    return idle[0] if len(idle) == 1 else -1
