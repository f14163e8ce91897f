from parallel_lab.plan import Op, Plan
from parallel_lab.trace import Sample, Span, Trace
from parallel_lab.view import summary


def two_ranks(simulated: bool, stretch: float = 1.0) -> Trace:
    spans = []
    for rank in range(2):
        spans.append(Span(rank, "F", 0, 4 * stretch, 0, 0))
        spans.append(Span(rank, "send", 2 * stretch, 6 * stretch, 0, 0, 1 - rank, "send", 800, 800, 1, wait_s=stretch))
        spans.append(Span(rank, "B", 6 * stretch, 8 * stretch, 0, 0))
    memory = (Sample(0, 0.0, 1_500_000), Sample(1, 1.0 * stretch, 12))
    return Trace(2, tuple(spans), memory, simulated)


def test_a_simulated_trace_has_times_bytes_messages_memory_and_the_bubble():
    assert summary(two_ranks(simulated=True)).splitlines() == [
        "2 ranks, 6 spans, 8.00 s (simulated)",
        "rank    busy  bytes sent  messages  overlap  peak memory             spans",
        "   0  75.0 %       800 B         1   2.00 s      1.50 MB  1 F, 1 B, 1 send",
        "   1  75.0 %       800 B         1   2.00 s         12 B  1 F, 1 B, 1 send",
        "bubble 25.0 %",
    ]


def test_a_recorded_trace_reads_the_same_however_long_it_took():
    fast, slow = two_ranks(simulated=False), two_ranks(simulated=False, stretch=3.7)
    assert summary(fast) == summary(slow)
    assert "busy" not in summary(fast) and "800 B" in summary(fast)
    assert summary(fast, times=True) != summary(slow, times=True)


def test_a_plan_is_counted_in_slots():
    plan = Plan.of([Op(0, "F", 0), Op(1, "F", 1)], {Op(1, "F", 1): [Op(0, "F", 0)]})
    assert summary(plan).splitlines()[0] == "2 ranks, 2 steps in 2 slots"
    assert summary(plan).endswith("bubble 50.0 %")


def test_many_ranks_with_the_same_numbers_share_a_line():
    trace = Trace(16, tuple(Span(rank, "F" if rank < 10 else "B", 0, 1) for rank in range(16)))
    assert [line.split()[0] for line in summary(trace).splitlines()[2:]] == ["0-9", "10-15"]


def test_an_empty_trace_has_a_summary():
    assert summary(Trace(1, ())).splitlines()[0] == "1 rank, 0 spans"
    assert summary(Trace(1, (), simulated=True)).splitlines()[-1].endswith("none")


def test_more_kinds_than_fit_are_counted():
    trace = Trace(1, tuple(Span(0, f"kind{i}", i, i + 1) for i in range(9)))
    assert summary(trace).endswith("3 more kinds")
