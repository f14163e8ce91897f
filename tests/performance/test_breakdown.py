"""The parts of a rank's step sum to it, on real ranks and in simulations, and planted causes are found where they are.

Times are asserted where the emulated link and sleeping passes guarantee them from below, and in simulations. What a
suggestion saved is compared with its price, in several tries.
"""

import time

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Link, explain, launch, span
from parallel_lab.data_parallel import DDP, ddp
from parallel_lab.network import AlphaBeta
from parallel_lab.performance import PARTS, Breakdown, Prefetcher, replay, verdict
from parallel_lab.pipeline import gpipe, one_f_one_b, step, zb_h1
from parallel_lab.pipeline.formulas import bubble as bubble_formula
from parallel_lab.pipeline.messages import with_messages
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.trace import Span, Trace

pytestmark = pytest.mark.usefixtures("by_value")
LINK = Link(1e-3, 1e9)
LATE, LATE_S = 1, 0.04
ROW_S = 8e-3


def sums_up(parts):
    for row in parts.rows:
        assert set(row.ns) == set(PARTS) and min(row.ns.values()) >= 0
        assert sum(row.ns.values()) == row.step_ns, row
        assert 0 <= row.overlapped_ns <= row.ns["compute"]
    return parts


def model(layers=8, width=16):
    return torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(layers)])


def ddp_steps(late_s=0.0, count=3, prefetch=False, **options):
    """DDP on `count` batches, a note a step; the loader of rank `LATE` is slow."""
    ddp_model = DDP(model(), **options)

    def load(_):
        time.sleep(late_s * (dist.get_rank() == LATE))
        return torch.randn(4, 16)

    batches = iter(Prefetcher(range(count), load, ahead=count) if prefetch else range(count))
    for number in range(count):
        with span("step", part=number, lane="mark"):
            if prefetch:
                x = next(batches)
            else:
                with span("data", part=number):
                    x = load(next(batches))
            ddp_model(x).sum().backward()
            with span("update"):
                ddp_model.zero_grad()


def test_parts_of_real_ranks_sum_to_the_step_and_the_late_loader_is_found():
    run = launch(ddp_steps, LATE_S * 4, ranks=3, device="cpu")
    parts = sums_up(Breakdown.of(run))
    assert [(row.rank, row.step) for row in parts.rows] == [(r, s) for r in range(3) for s in range(3)]
    assert parts.seconds("data", LATE) >= LATE_S * 4
    assert verdict(parts) == ("straggler", LATE)
    found = explain(run)
    assert (found.cause, found.rank) == ("straggler", LATE)
    assert f"All wait for rank {LATE}: it spends" in str(found) and "on waiting for the next batch." in str(found)
    tried = {each.what: each for each in found.suggestions}
    prefetched = tried["load the next batch beside the computation"]
    assert LATE_S * 4 <= prefetched.then_s <= prefetched.now_s, "a loader slower than the step is not hidden"
    assert tried[f"make rank {LATE} as fast as the others"].gain > 0.5


def under_way_s(run):
    """Of each all-reduce of a batch's step the seconds on the rank that came first: no emulated link takes less."""
    ranks = [[s for s in run.trace.of(rank) if s.kind == "all_reduce" and s.mb == 2] for rank in range(2)]
    return [max(span.end_s - span.start_s for span in spans) for spans in zip(*ranks, strict=True)]


def test_larger_buckets_are_suggested_priced_and_tried():
    """Eight all-reduces of 2 x 40 ms: computing is short beside them, also on a busy machine. Then it is applied."""
    link, count = Link(40e-3, 1e9), 8
    small = (16 * 16 + 16) * 4
    run = launch(ddp_steps, ranks=2, link=link, device="cpu", bucket_bytes=small)
    sums_up(Breakdown.of(run))
    found = explain(run, worth=0.05)
    assert found.cause == "exposed"
    best = next(each for each in found.suggestions if each.what.startswith("exchange"))
    assert best.what == "exchange 1 equal bucket instead of 8, overlapped"
    assert best.how == f"DDP(model, bucket_bytes={count * small})"
    assert best.now_s - best.then_s == pytest.approx((count - 1) * 2 * link.latency_s, rel=0.2)
    after = launch(ddp_steps, ranks=2, link=link, device="cpu", bucket_bytes=count * small)
    sums_up(Breakdown.of(after))
    for each, buckets in ((run, count), (after, 1)):
        assert len(under_way_s(each)) == buckets and min(under_way_s(each)) >= 0.99 * 2 * link.latency_s


def test_overlap_is_suggested_and_hides_bytes_when_tried():
    link = Link(5e-3, 1e9)
    options = {"ranks": 2, "link": link, "device": "cpu", "bucket_bytes": 4 * (16 * 16 + 16) * 4}
    run = launch(ddp_steps, overlap=False, **options)
    assert sums_up(Breakdown.of(run)).seconds("overlapped") == 0
    whats = [each.what for each in explain(run).suggestions]
    assert "send each bucket while backward computes the next" in whats
    after = launch(ddp_steps, overlap=True, **options)
    for rank in range(2):  # whatever the clock: the first bucket left before the backward of the last was over
        own = [s for s in after.trace.of(rank) if s.mb == 2]
        ends = [s.end_s for s in own if s.kind == "B"]
        assert [s.start_s < max(ends) for s in own if s.kind == "all_reduce"] == [True, False]
    assert "send each bucket while backward computes the next" not in [s.what for s in explain(after).suggestions]


class Slow(torch.autograd.Function):
    """Stands for an accelerator: each row takes a millisecond forward and two backward."""

    @staticmethod
    def forward(ctx, x):
        time.sleep(ROW_S * len(x))
        return x.clone()

    @staticmethod
    def backward(ctx, of_x):
        time.sleep(2 * ROW_S * len(of_x))
        return of_x


class Stage(torch.nn.Linear):
    def forward(self, x):
        return Slow.apply(super().forward(x))


def pipelined_steps(m):
    """Two steps of 1F1B with 16 rows in `m` microbatches over all ranks."""
    stage, parts = Stage(3, 3), list(torch.ones(16, 3).split(16 // m))
    for number in range(2):
        with span("step", part=number, lane="mark"):
            step(one_f_one_b(dist.get_world_size(), m), stage, parts, parts, lambda out, _: out.square().sum())


def test_more_microbatches_are_suggested_for_a_real_pipeline_and_tried():
    """No step is shorter than its passes, and half the microbatch takes half the time, as this accelerator does."""
    p, m, whole_s = 2, 2, 16 * 3 * ROW_S
    run = launch(pipelined_steps, m, ranks=p, device="cpu")
    before = sums_up(Breakdown.of(run))
    assert before.seconds("bubble") > 0
    assert before.step_s >= whole_s * (m + p - 1) / m
    found = explain(run)
    more = next(each for each in found.suggestions if each.how == f"one_f_one_b({p}, {2 * m})")
    assert more.now_s >= whole_s * (m + p - 1) / m
    assert 0.1 < more.gain < 0.25, "(2m + p - 1) / 2m of 5/4 instead of 3/2, less what is beside the passes"
    after = launch(pipelined_steps, 2 * m, ranks=p, device="cpu")
    assert sums_up(Breakdown.of(after)).step_s >= whole_s * (2 * m + p - 1) / (2 * m)
    for rank in range(p):  # twice as many passes of the same rows: the schedule that was suggested ran
        passes = [[s for s in each.trace.of(rank) if s.kind in ("F", "B")] for each in (run, after)]
        assert len(passes[1]) == 2 * len(passes[0])


# Simulated traces: every number is known.


@pytest.mark.parametrize(("name", "make"), [("gpipe", gpipe), ("one_f_one_b", one_f_one_b), ("zb_h1", zb_h1)])
@pytest.mark.parametrize(("p", "m"), [(1, 3), (2, 2), (3, 5), (4, 8)])
def test_the_bubble_of_a_simulated_pipeline(name, make, p, m):
    trace = simulate(make(p, m), PassCost())
    parts = sums_up(Breakdown.of(trace))
    assert parts.share("bubble") == pytest.approx(trace.bubble(), abs=1e-9)
    if name != "zb_h1":
        assert parts.share("bubble") == pytest.approx(bubble_formula(name, p, m), abs=1e-9)
    assert verdict(parts)[0] == ("bubble" if p > 1 else "compute")
    assert replay(trace).step_s == pytest.approx(trace.duration_s)
    assert replay(trace).scaled({"compute": 0.5}).step_s == pytest.approx(trace.duration_s / 2)


def test_suggestions_for_a_pipeline_are_the_simulator_s():
    p, m = 4, 8
    found = explain(simulate(one_f_one_b(p, m), PassCost()))
    prices = {each.how: each.then_s for each in found.suggestions}
    assert found.suggestions[0].now_s == 3 * (m + p - 1)
    assert prices[f"one_f_one_b({p}, {2 * m})"] == 1.5 * (2 * m + p - 1)
    assert prices[f"zb_h1({p}, {m})"] == simulate(zb_h1(p, m), PassCost()).duration_s
    assert prices[f"interleaved({p}, {m}, 2)"] == pytest.approx(3 * m * (1 + (p - 1) / (2 * m)))
    assert [s.then_s for s in found.suggestions] == sorted(s.then_s for s in found.suggestions)


@pytest.mark.parametrize("make", [gpipe, one_f_one_b, zb_h1])
def test_messages_are_exposed_where_they_are_waited_for(make):
    plan = with_messages(make(3, 4))
    trace = simulate(plan, PassCost(message_s=0.25))
    parts = sums_up(Breakdown.of(trace))
    assert parts.seconds("exposed") > 0 and parts.seconds("straggler") == 0
    assert replay(trace).step_s == pytest.approx(trace.duration_s)
    free = replay(trace).scaled({"exposed": 0.0}).step_s
    assert free == pytest.approx(simulate(plan, PassCost()).duration_s)


def ddp_trace(n=4, q=5, overlap=True, slow=-1, size_bytes=8e6):
    seconds = {"F": 0.02, "B": 0.008, "update": 0.001}
    cost = AlphaBeta.over(LINK, size_bytes, lambda op: seconds[op.kind] * (2 if op.rank == slow else 1))
    return simulate(ddp.plan(n, q, overlap), cost)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("overlap", [True, False])
def test_gradient_exchange_in_a_simulation(n, overlap):
    q, size_bytes = 5, 8e6
    each_s = 2 * (n - 1) * (LINK.latency_s + size_bytes / n / LINK.bytes_per_s)
    trace = ddp_trace(n, q, overlap)
    parts = sums_up(Breakdown.of(trace))
    step_s = 0.02 + (0.008 + (q - 1) * max(0.008, each_s) + each_s if overlap else q * 0.008 + q * each_s) + 0.001
    assert parts.step_s == pytest.approx(step_s)
    assert parts.seconds("compute") == pytest.approx(0.02 + q * 0.008 + 0.001)
    assert parts.seconds("exposed") == pytest.approx(step_s - 0.061)
    assert parts.seconds("exposed") + parts.seconds("overlapped") == pytest.approx(q * each_s)
    recorded = replay(trace)
    assert recorded.step_s == pytest.approx(step_s)
    half = ddp_trace(n, q, overlap, size_bytes=size_bytes / 2).duration_s
    found = {s.what: s for s in explain(trace, link=LINK).suggestions}
    assert found["send half the bytes"].then_s == pytest.approx(half)
    assert found["send half the bytes"].now_s == pytest.approx(step_s)


@pytest.mark.parametrize("overlap", [True, False])
def test_the_price_of_other_buckets_is_that_of_the_formula(overlap):
    """The best number of equal buckets of the same 40 MB, with the same 40 ms of backward in as many parts."""
    n, best = 4, 2
    found = explain(ddp_trace(n, 5, overlap), link=LINK, worth=0.05)
    assert found.cause == "exposed"
    price = next(each for each in found.suggestions if each.what.startswith(f"exchange {best} equal buckets"))
    part_s, each_s = 0.04 / best, 2 * (n - 1) * (LINK.latency_s + 40e6 / best / n / LINK.bytes_per_s)
    assert each_s > part_s
    assert price.then_s == pytest.approx(0.02 + part_s + best * each_s + 0.001)


def test_a_straggler_in_a_simulation():
    """Rank 2 computes at half the speed; without overlap the others stand before the first all-reduce."""
    trace = ddp_trace(4, 5, overlap=False, slow=2)
    parts = sums_up(Breakdown.of(trace))
    assert [round(parts.seconds("straggler", rank), 9) for rank in range(4)] == [0.06, 0.06, 0, 0.06]
    assert verdict(parts, 0.01)[0] == "exposed"
    assert verdict(Breakdown.of(ddp_trace(4, 1, False, slow=2, size_bytes=1))) == ("straggler", 2)
    level = replay(trace).scaled({"compute": 0.5}, rank=2).step_s
    assert level == pytest.approx(ddp_trace(4, 5, overlap=False).duration_s)


def test_kinds_of_the_host_and_what_hides_what():
    """Of moments with several names the first of `PARTS` counts."""
    spans = (
        Span(0, "data", 0.0, 2.0, 0),
        Span(0, "F", 2.0, 4.0, 0),
        Span(0, "launch", 4.0, 4.5, 0),
        Span(0, "B", 4.5, 6.0, 0),
        Span(0, "copy", 5.5, 7.0, 0, lane="copy"),
        Span(0, "all_reduce", 5.0, 9.0, 0, lane=SEND),
        Span(0, "data", 8.5, 9.5, 1, lane="load"),
        Span(0, "F", 10.0, 11.0, 1),
    )
    parts = sums_up(Breakdown.of(Trace(1, spans)))
    seconds = {part: parts.seconds(part) for part in PARTS}
    assert seconds == {
        "compute": 4.5, "data": 3.0, "launch": 0.5, "copy": 1.0, "straggler": 0, "bubble": 0, "exposed": 1.5,
        "other": 0.5,
    }  # fmt: skip
    assert parts.seconds("overlapped") == 1.0
    assert replay(Trace(1, spans)).step_s == pytest.approx(11)
    assert replay(Trace(1, spans)).scaled({"launch": 0}).step_s == pytest.approx(10.5)


def test_a_wait_inside_a_pass_is_no_computing():
    """A tensor-parallel forward of 10 s stands still for 6 s in its all-reduce; of these, rank 0 comes 2 s late."""
    spans = (
        Span(0, "F", 2.0, 12.0),
        Span(0, "all_reduce", 4.0, 8.0, lane=SEND, wait_s=4.0),
        Span(1, "F", 0.0, 12.0),
        Span(1, "all_reduce", 2.0, 8.0, lane=SEND, wait_s=6.0),
    )
    parts = sums_up(Breakdown.of(Trace(2, spans)))
    assert (parts.seconds("compute", 1), parts.seconds("straggler", 1), parts.seconds("exposed", 1)) == (6, 2, 4)
    assert (parts.seconds("compute", 0), parts.seconds("straggler", 0), parts.seconds("other", 0)) == (6, 0, 2)


def test_a_receive_that_waits_for_a_late_sender_is_a_bubble():
    spans = (
        Span(0, "F", 0.0, 3.0),
        Span(0, "send", 3.0, 4.0, 0, peer=1, lane=SEND, phase="forward"),
        Span(1, "recv", 0.0, 4.0, 0, peer=0, lane="recv", phase="forward"),
        Span(1, "F", 4.0, 7.0, 1),
    )
    parts = sums_up(Breakdown.of(Trace(2, spans)))
    assert (parts.seconds("bubble", 1), parts.seconds("exposed", 1), parts.seconds("bubble", 0)) == (3, 1, 3)
    inside = tuple(s._replace(phase="backward/3") for s in spans)
    assert Breakdown.of(Trace(2, inside)).seconds("straggler", 1) == 3, "a message of a collective"
    assert replay(Trace(2, spans)).step_s == pytest.approx(7)


def test_a_slow_loader_of_all_ranks_and_of_one():
    ops = [Op(r, kind, 0) for r in range(3) for kind in ("data", "F", "B")]
    everyone = simulate(Plan.of(ops), AlphaBeta.over(LINK, 0, {"data": 2.0, "F": 1.0, "B": 2.0}))
    assert verdict(Breakdown.of(everyone)) == ("data", -1)
    found = {s.what: s.then_s for s in explain(everyone).suggestions}
    assert found["load the next batch beside the computation"] == pytest.approx(3.0)
    quick = simulate(Plan.of(ops), AlphaBeta.over(LINK, 0, {"data": 0.2, "F": 1.0, "B": 2.0}))
    assert verdict(Breakdown.of(quick)) == ("compute", -1)


def test_nothing_recorded():
    with pytest.raises(ValueError, match="the trace has no spans: was it recorded"):
        Breakdown.of(Trace(2, ()))
    with pytest.raises(ValueError, match=r"no step 4 on every rank; there are \[0\]"):
        replay(ddp_trace(), 4)


def test_the_words():
    text = str(explain(ddp_trace(4, 5, overlap=False), link=LINK))
    assert text.splitlines()[:3] == [
        "A step takes 151 ms in the simulation, the mean of all ranks.",
        "The largest loss is communication that nothing hides: 90.0 ms a step, 59.6 %.",
        "Computing takes 61.0 ms a step, 40.4 %.",
    ]
    assert "send each bucket while backward computes the next: 151 ms -> 119 ms (-21%). Try: DDP(model, ov" in text
    assert str(Breakdown.of(ddp_trace(2, 2, False))).splitlines()[1].split() == ["rank", "step", "compute", "exposed"]
