"""What one trace says of a training, on traces whose numbers are known, and on one that ranks recorded."""

import math

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch, span
from parallel_lab.model import budget
from parallel_lab.network import Link, bus_bandwidth
from parallel_lab.systems.evaluation import speed
from parallel_lab.systems.evaluation.speed import Work, joined, percentile, steps, straggler_ratio, time_to
from parallel_lab.trace import Span, Trace

WORK = Work(tokens=1000, model_flops=6e6, hardware_flops=8e6, peak_flops_per_s=2e9)


def two_steps() -> Trace:
    """Ranks 0 to 2 compute 1 s, 1 s and 2 s, then all-reduce until 3 s; the steps begin at 0 s and at 3 s."""
    spans = []
    for rank, busy in enumerate((1.0, 1.0, 2.0)):
        for step, start in enumerate((0.0, 3.0)):
            spans += [
                Span(rank, "step", start, start + 3, part=step, lane="mark"),
                Span(rank, "F", start, start + busy),
                Span(rank, "all_reduce", start + busy, start + 3, lane="send", bytes=300, sent_bytes=400),
            ]
    return Trace(3, tuple(spans))


def test_every_number_of_a_known_trace():
    found = speed.speed(two_steps(), WORK)
    assert (found.steps, found.step_s, found.p50_s, found.p99_s) == (2, 3.0, 3.0, 3.0)
    assert found.tokens_per_s == pytest.approx(1000 / 3)
    assert found.mfu == pytest.approx(6e6 * 1000 / 3 / (3 * 2e9))
    assert found.hfu / found.mfu == pytest.approx(4 / 3)
    assert found.exposed == pytest.approx((2 + 2 + 1) / 9)
    assert found.delay_s == 1.0
    assert found.straggler == 2.0
    assert found.sent_bytes == 400
    assert "measured" in str(found) and "33.3 %" in str(found)


def test_what_stands_before_the_first_step_is_no_part_of_it():
    """A warm-up and its all-reduce, which lasted 100 s."""
    warm_up = tuple(Span(rank, "all_reduce", -100.0, -1.0, lane="send", sent_bytes=10**9) for rank in range(3))
    with_it = Trace(3, (*warm_up, *two_steps().spans))
    assert speed.speed(with_it, WORK) == speed.speed(two_steps(), WORK)


def test_a_straggler_is_no_slow_network():
    first, second = joined(two_steps())
    assert (first.delay_s, first.last_rank) == (1.0, 2)
    assert second.bus_bytes_per_s == pytest.approx(bus_bandwidth("all_reduce", 3, 300, 1.0))


def test_the_exposed_is_what_is_not_overlapped():
    spans = (Span(0, "F", 0, 4), Span(0, "send", 3, 6, lane="send"), Span(0, "receive", 5, 7, lane="receive"))
    assert Trace(1, spans).exposed_s(0) == 3


def test_traces_that_cannot_be_judged():
    with pytest.raises(ValueError, match="steps by rank: 0"):
        steps(Trace(1, (Span(0, "F", 0, 1),)))
    alone = (Span(0, "all_reduce", 0, 1, lane="send"), Span(1, "broadcast", 0, 1, lane="send"))
    with pytest.raises(ValueError, match="did not call the same"):
        joined(Trace(2, alone))


def test_percentiles_by_nearest_rank():
    values = list(range(1, 101))
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([1.0, 9.0], 99) == 9.0
    assert percentile([7.0], 0) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_scaling_laws_agree_with_each_other():
    for serial in (0.0, 0.05, 1.0):
        for n in (2, 8, 1024):
            assert speed.serial_share(speed.amdahl(serial, n), n) == pytest.approx(serial, abs=1e-12)
            scaled = speed.gustafson(serial, n)  # one rank would need s + n (1 - s) times as long
            assert scaled == pytest.approx(serial + n * (1 - serial))
    assert speed.amdahl(0.05, 10**9) < 1 / 0.05
    assert speed.strong_efficiency(8.0, 1.0, 8) == speed.weak_efficiency(1.0, 1.0) == 1.0
    assert speed.strong_efficiency(8.0, 2.0, 8) == 0.5
    with pytest.raises(ValueError, match="at least 2"):
        speed.serial_share(1.0, 1)


def test_a_lucky_evaluation_is_not_the_time_to_a_loss():
    assert time_to(2.0, [1, 2, 3, 4], [3.0, 1.9, 2.1, 1.8]) == 4
    assert time_to(2.0, [1, 2, 3], [2.0, 1.9, 1.8]) == 1
    assert time_to(1.0, [1, 2], [2.0, 1.5]) == math.inf


def test_nothing_computed_has_no_straggler():
    assert math.isnan(straggler_ratio([0.0, 0.0]))


def train():
    for step in range(3):
        with span("step", part=step, lane="mark"):
            with span("forward"):
                torch.randn(64, 64) @ torch.randn(64, 64)
            dist.all_reduce(torch.zeros(25_000))


def test_a_recorded_trace_over_an_emulated_link():
    """100 kB over 10 MB/s by a ring of 2 take 10 ms at least, and not all of it can be hidden."""
    run = launch(train, ranks=2, link=Link(1e-3, 10e6), device="cpu")
    found = speed.speed(run.trace, WORK)
    assert found.steps == 3 and not found.simulated
    assert found.sent_bytes == 100_000
    assert found.step_s >= 0.010
    assert 0 < found.exposed <= 1
    assert all(each.bus_bytes_per_s <= 10.1e6 for each in joined(run.trace))
    assert found.mfu == pytest.approx(budget.utilization(6e6, found.tokens_per_s, 2, 2e9))
