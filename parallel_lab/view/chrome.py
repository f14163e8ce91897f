"""A trace as a file in Google's Trace Event Format, for Perfetto (ui.perfetto.dev) and chrome://tracing.

Each rank is a process and each lane a thread; a lane with several spans at once takes further threads, because slices
of one thread must nest. Arrows lead from each send to its receive. Times are microseconds, as the format demands.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from parallel_lab.plan import LANES, RECV, SEND, Op
from parallel_lab.trace import Span, Trace
from parallel_lab.view.layout import by_lane, lane_order, pack

_THREADS_PER_LANE = 1000


def chrome_trace(trace: Trace) -> dict:
    """`trace` as a dict that `json.dump` writes in the Trace Event Format ("JSON object format")."""
    threads = _threads(trace)
    events = [
        *_names(trace, threads),
        *(_slice(s, thread) for s, thread in zip(trace.spans, threads, strict=True)),
        *_arrows(trace, threads),
        *_counters(trace),
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"simulated": trace.simulated}}


def save_chrome(trace: Trace, path: str | Path) -> None:
    """Writes `chrome_trace(trace)` to `path` as JSON."""
    Path(path).write_text(json.dumps(chrome_trace(trace), separators=(",", ":")), encoding="utf-8")


def _us(time_s: float) -> float:
    return round(time_s * 1e6, 3)


def _threads(trace: Trace) -> list[int]:
    """The thread of each span: by lane, and by row where spans of a lane overlap."""
    known = sorted({*LANES, *(s.lane for s in trace.spans)}, key=lane_order)
    threads = [0] * len(trace.spans)
    for (_, lane), indices in by_lane(trace).items():
        rows = pack([trace.spans[i] for i in indices], most=None)
        for i, row in zip(indices, rows, strict=True):
            threads[i] = known.index(lane) * _THREADS_PER_LANE + row
    return threads


def _names(trace: Trace, threads: list[int]) -> Iterator[dict]:
    for rank in range(trace.ranks):
        yield _named("process_name", rank, 0, name=f"rank {rank}")
        yield _named("process_sort_index", rank, 0, sort_index=rank)
    for rank, thread, lane in sorted({(s.rank, t, s.lane) for s, t in zip(trace.spans, threads, strict=True)}):
        row = thread % _THREADS_PER_LANE
        yield _named("thread_name", rank, thread, name=f"{lane} {row + 1}" if row else lane)
        yield _named("thread_sort_index", rank, thread, sort_index=thread)


def _named(what: str, rank: int, thread: int, **args) -> dict:
    return {"ph": "M", "name": what, "pid": rank, "tid": thread, "args": args}


def _slice(s: Span, thread: int) -> dict:
    facts = ("part", "mb", "round", "axis", "phase", "peer", "bytes", "group", "line")
    args = {name: value for name in facts if (value := getattr(s, name)) not in ("", -1)}
    if s.wait_s:
        args["wait_us"] = _us(s.wait_s)
    where = {"pid": s.rank, "tid": thread, "ts": _us(s.start_s), "dur": _us(s.end_s - s.start_s)}
    return {"ph": "X", "name": s.name, "cat": s.lane, **where, "args": args}


def messages(trace: Trace) -> list[tuple[int, int]]:
    """(index of the send, index of the receive) of each message between two ranks, in order of sending.

    A message is known by its ranks and by what names its op; equal ones pair up in order of issue.
    """
    sends: dict[Op, list[int]] = defaultdict(list)
    receives: dict[Op, list[int]] = defaultdict(list)
    for i, s in enumerate(trace.spans):
        if s.peer >= 0 and s.lane == SEND:
            sends[s.op._replace(kind="send")].append(i)
        elif s.peer >= 0 and s.lane == RECV:
            receives[s.op.sender()].append(i)
    return sorted(pair for op in sends for pair in zip(sends[op], receives[op], strict=False))


def _arrows(trace: Trace, threads: list[int]) -> Iterator[dict]:
    for number, (out, into) in enumerate(messages(trace)):
        left, came = trace.spans[out], trace.spans[into]
        # Readers drop an arrow that ends before it starts; a receive is often posted before its send.
        arrival_s = min(max(left.start_s, came.start_s), came.end_s)
        common = {"name": "message", "cat": "message", "id": number}
        yield {"ph": "s", **common, "pid": left.rank, "tid": threads[out], "ts": _us(left.start_s)}
        yield {"ph": "f", "bp": "e", **common, "pid": came.rank, "tid": threads[into], "ts": _us(arrival_s)}


def _counters(trace: Trace) -> Iterator[dict]:
    for rank in range(trace.ranks):
        for time_s, held in trace.held_bytes(rank):
            yield {"ph": "C", "name": "bytes held", "pid": rank, "tid": 0, "ts": _us(time_s), "args": dict(held)}
