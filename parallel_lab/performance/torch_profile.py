"""The trace that torch.profiler saw: its JSON file, of a run on a GPU or on the CPU, as a `Trace` and a `Breakdown`.

`torch.profiler.profile(...).export_chrome_trace("rank0.json.gz")` writes one file a rank. What matters of it:

    kernels              what the GPU computed; those that begin with `nccl` communicate, wait for other ranks included
    memcpy, memset       what it copied
    runtime calls        when the host asked for each of these; the same `correlation` names the call and the kernel
    ProfilerStep#7       a step, by the clock of the host, from `profiler.step()` on
    enumerate(DataLoader)#...   the host waits for its batch

A pause of the whole GPU is *launch overhead* under this rule: it is no longer than `launch_s`, and the host's call for
the next kernel had not returned when the pause began (or is not in the file). So the GPU was faster than the host. A
longer pause is something else that the host did (`other`), and so is one before a kernel that stood in the queue
already. A launch takes some microseconds, the Python and the dispatcher around it several times that; `launch_s` is a
choice, not a law.

Of one file the wait for a late rank is not seen: an NCCL kernel runs while it waits. Of several files, what
stands at the same place in all ranks' order of communications is one, if the names are the same throughout: it takes
what it takes on the rank that came last, and the rest of the others' is waiting. The clocks of the ranks are not
compared. If files are missing, the rank that came last may be among them, and what is called exposed is a bound from
above.
"""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from parallel_lab.performance.breakdown import STEP, Breakdown
from parallel_lab.plan import COMPUTE, RECV, SEND
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK

LAUNCH_S = 50e-6
DEVICE = ("kernel", "gpu_memcpy", "gpu_memset", "memcpy", "memset")  # the last two as older versions wrote them
CALLS = ("cuda_runtime", "cuda_driver", "runtime")
COMMUNICATION = re.compile(r"nccl|gloo:|c10d::", re.IGNORECASE)
STEP_NAME = re.compile(r"ProfilerStep#(\d+)")
LOADER = "enumerate(DataLoader)"
KINDS = {  # what a kernel's name has, without case and underscores -> the kind of its span
    "allreduce": "all_reduce",
    "reducescatter": "reduce_scatter",
    "allgather": "all_gather",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "sendrecv": "send and recv",
}


class Event(NamedTuple):
    """One event of the file that took time."""

    start_s: float
    end_s: float
    name: str
    category: str  # in lower case
    correlation: int  # -1 where it has none


def read_profile(*paths: str | Path, launch_s: float = LAUNCH_S) -> Breakdown:
    """The parts of each step that torch.profiler saw, from the file of each rank (`.json` or `.json.gz`).

    Args:
        *paths: the files, in the order of ranks.
        launch_s: the longest pause that counts as launch overhead.

    Raises:
        ValueError: a file is no profile, or nothing in it took time.
    """
    return Breakdown.of(profile_trace(*paths, launch_s=launch_s))


def profile_trace(*paths: str | Path, launch_s: float = LAUNCH_S) -> Trace:
    """The same files as a trace, to draw and to replay; arguments and errors as in `read_profile`."""
    ranks = [sorted(events(path)) for path in paths]
    sent = [[e for e in found if _role(e, _has_gpu(found)) == SEND] for found in ranks]
    names = [[_kind(e.name) for e in own] for own in sent]
    alike = len(paths) > 1 and all(own == names[0] for own in names)
    shortest = [min(e.end_s - e.start_s for e in each) for each in zip(*sent, strict=alike)] if alike else []
    spans: list[Span] = []
    for rank, found in enumerate(ranks):
        spans += _spans(rank, found, sent[rank], shortest, launch_s)
    if not spans:
        raise ValueError(f"nothing in {', '.join(map(str, paths)) or 'no file'} took time")
    return Trace(len(paths), tuple(spans))


def events(path: str | Path) -> Iterator[Event]:
    """What took time, in seconds since the first of it.

    Raises:
        ValueError: the file is no profile.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            listed = json.load(file)["traceEvents"]
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no trace of torch.profiler: it has no list of traceEvents") from error
    timed = [each for each in listed if each.get("ph") == "X"]
    zero_us = min((each["ts"] for each in timed), default=0)  # of a day in 2023, a float of seconds has no nanoseconds
    for each in timed:
        start_us, category = each["ts"] - zero_us, str(each.get("cat", "")).lower()
        correlation = int((each.get("args") or {}).get("correlation", -1))
        yield Event(start_us / 1e6, (start_us + each["dur"]) / 1e6, each["name"], category, correlation)


def _has_gpu(found: Sequence[Event]) -> bool:
    return any(e.category in DEVICE for e in found)


def _role(event: Event, gpu: bool) -> str:
    """The lane or the kind of what an event is: computing, sending, copying, loading, a step; empty for all else."""
    if STEP_NAME.fullmatch(event.name) and event.category.startswith("user"):
        return STEP
    if event.name.startswith(LOADER):
        return "data"
    if event.category in DEVICE if gpu else event.category in ("cpu_op", "user_annotation"):
        if COMMUNICATION.match(event.name):
            return SEND
        if gpu and event.category != "kernel":
            return "copy"
        return COMPUTE if gpu or event.name.startswith("aten::") else ""
    return ""


def _kind(name: str) -> str:
    plain = name.lower().replace("_", "")
    return next((kind for word, kind in KINDS.items() if word in plain), "communication")


def _spans(
    rank: int, found: Sequence[Event], sent: Sequence[Event], shortest: Sequence[float], launch_s: float
) -> Iterator[Span]:
    """The spans of one rank, times since the first event of its file."""
    gpu, group = _has_gpu(found), f"profile {rank}"  # a group of its own: clocks of other ranks do not count
    for number, event in enumerate(found):
        role = _role(event, gpu)
        if role == STEP:
            step = int(event.name.partition("#")[2])
            yield Span(rank, STEP, event.start_s, event.end_s, step, lane=MARK)
        elif role == COMPUTE:
            yield Span(rank, "kernel" if gpu else "op", event.start_s, event.end_s, number)
        elif role in ("copy", "data"):
            yield Span(rank, role, event.start_s, event.end_s, number, lane=role)
    for number, event in enumerate(sent):
        joined_s = event.end_s - shortest[number] if shortest else event.start_s
        if joined_s > event.start_s:
            yield Span(rank, "wait", event.start_s, joined_s, number, lane=RECV, group=group)
        yield Span(rank, _kind(event.name), joined_s, event.end_s, number, lane=SEND, group=group)
    for number, (start_s, end_s) in enumerate(_launches(found, launch_s)):
        yield Span(rank, "launch", start_s, end_s, number)


def _launches(found: Sequence[Event], launch_s: float) -> Iterator[tuple[float, float]]:
    """The pauses of the GPU that are launch overhead."""
    asked_s = {e.correlation: e.end_s for e in found if e.category in CALLS and e.correlation >= 0}
    device = [e for e in found if e.category in DEVICE]
    busy_s = device[0].end_s if device else 0.0
    for event in device:
        late = asked_s.get(event.correlation, event.start_s) > busy_s
        if busy_s < event.start_s <= busy_s + launch_s and late:
            yield busy_s, event.start_s
        busy_s = max(busy_s, event.end_s)
