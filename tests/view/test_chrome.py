import json
from collections import defaultdict
from itertools import pairwise

from parallel_lab.plan import Plan, recv, send
from parallel_lab.trace import Sample, Span, Trace
from parallel_lab.view import chrome_trace, save_chrome
from parallel_lab.view.chrome import messages
from parallel_lab.view.layout import unit_trace

REQUIRED = {
    "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
    "M": {"name", "pid", "tid", "args"},
    "s": {"name", "cat", "id", "pid", "tid", "ts"},
    "f": {"name", "cat", "id", "pid", "tid", "ts", "bp"},
    "C": {"name", "pid", "ts", "args"},
}


def exchange() -> Trace:
    spans = (
        Span(0, "F", 0.0, 0.5, 0, 0, line="cell.py:3"),
        Span(0, "send", 0.5, 0.75, 0, 0, 1, "send", 100, 100, 1, wait_s=0.25),
        Span(1, "recv", 0.0, 0.8, 0, 0, 0, "recv", 100),
        Span(0, "all_reduce", 1.0, 2.0, lane="send"),
        Span(0, "all_reduce", 1.5, 2.5, lane="send"),
    )
    return Trace(2, spans, (Sample(0, 0.1, 10, "a"), Sample(0, 0.2, 5, "b")))


def events(phase: str, trace: Trace) -> list[dict]:
    return [e for e in chrome_trace(trace)["traceEvents"] if e["ph"] == phase]


def test_each_event_has_what_its_phase_requires(tmp_path):
    save_chrome(exchange(), tmp_path / "trace.json")
    read = json.loads((tmp_path / "trace.json").read_text())
    assert read == chrome_trace(exchange())
    for event in read["traceEvents"]:
        assert REQUIRED[event["ph"]] <= event.keys()
        assert all(isinstance(event[k], int) for k in ("pid", "tid"))
        assert event.get("ts", 0) >= 0 and event.get("dur", 0) >= 0


def test_spans_are_in_microseconds_with_their_facts():
    first, sent, *_ = events("X", exchange())
    assert (first["name"], first["ts"], first["dur"], first["pid"]) == ("forward", 0, 500_000, 0)
    assert first["args"] == {"part": 0, "mb": 0, "round": 0, "bytes": 0, "line": "cell.py:3"}
    assert sent["args"]["peer"] == 1 and sent["args"]["wait_us"] == 250_000


def test_slices_of_one_thread_never_overlap():
    threads = defaultdict(list)
    for e in events("X", exchange()):
        threads[e["pid"], e["tid"]].append((e["ts"], e["ts"] + e["dur"]))
    for slices in threads.values():
        ordered = sorted(slices)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered))
    named = {(e["pid"], e["tid"]) for e in events("M", exchange()) if e["name"] == "thread_name"}
    assert named == set(threads)


def test_an_arrow_leads_from_the_send_to_the_receive_and_forward_in_time():
    (start,), (end,) = events("s", exchange()), events("f", exchange())
    assert start["id"] == end["id"] and (start["pid"], end["pid"]) == (0, 1)
    assert start["ts"] == 500_000 <= end["ts"] <= 800_000


def test_equal_messages_pair_in_order_and_unmatched_ones_stay_alone():
    ops = [send(0, 1, 3), send(0, 1, 3, 1), recv(1, 0, 3), recv(1, 0, 3, 1)]
    trace = unit_trace(Plan.of(ops))
    twice = Trace(2, trace.spans + trace.spans + (Span(0, "send", 9, 10, 7, 0, 1, "send"),))
    assert messages(twice) == [(0, 2), (1, 3), (4, 6), (5, 7)]


def test_counters_carry_all_kinds_held():
    assert [e["args"] for e in events("C", exchange())] == [{"a": 10}, {"a": 10, "b": 5}]
