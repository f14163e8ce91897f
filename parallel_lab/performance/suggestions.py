"""Suggestions that need another plan: of gradient exchange and of pipelines, with the seconds that were recorded."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from statistics import fmean, median
from typing import NamedTuple

from parallel_lab.data_parallel import ddp
from parallel_lab.network import AlphaBeta, CostModel, Link
from parallel_lab.performance.breakdown import to_ns, windows
from parallel_lab.pipeline import interleaved, one_f_one_b, zb_h1
from parallel_lab.pipeline.messages import with_messages
from parallel_lab.pipeline.needs import with_needs
from parallel_lab.plan import NAMES, Op, Plan
from parallel_lab.simulate import simulate
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK
from parallel_lab.trace.units import format_seconds

BUCKETS = (1, 2, 4, 8, 16, 32, 64)  # numbers of buckets that are tried


class Suggestion(NamedTuple):
    """One change, and what the simulator makes of it."""

    what: str  # in words
    how: str  # how to try it
    now_s: float  # the step in the same model with nothing changed
    then_s: float  # and with the change
    trace: Trace  # the simulated step with the change, to draw

    @property
    def gain(self) -> float:
        """The share of the step that is saved."""
        return 1 - self.then_s / self.now_s if self.now_s else 0.0

    def __str__(self) -> str:
        change = f"{format_seconds(self.now_s)} -> {format_seconds(self.then_s)} ({-self.gain:+.0%})"
        return f"{self.what}: {change}. Try: {self.how}"


def buckets(trace: Trace, link: Link | None) -> Iterator[Suggestion]:
    """Overlap, and other numbers of buckets, where a step has the form F, B ... with all-reduces of buckets."""
    step = _last_step(trace)
    sent = [s for s in step[0] if s.kind == "all_reduce" and s.phase in ("backward", "") and s.bytes]
    if trace.ranks < 2 or not sent or any(s.kind in ("send", "recv") for s in chain(*step)):
        return
    passes = [(_took(own, "F"), _took(own, "B"), _took(own, "update")) for own in step]
    forward_s, backward_s, update_s = (max(each) for each in zip(*passes, strict=True))
    if not backward_s:
        return
    link, size = link or fitted(sent, trace), sum(s.bytes for s in sent)
    last_s = max((s.end_s for s in step[0] if s.kind == "B"), default=0.0)
    overlaps = any(s.start_s < last_s for s in sent[:-1])

    def run(buckets: int, overlap: bool, sizes: Sequence[float] | None = None) -> Trace:
        seconds = {"F": forward_s, "B": backward_s / buckets, "update": update_s}
        cost = AlphaBeta.over(link, sizes or size / buckets, seconds)
        return simulate(ddp.plan(trace.ranks, buckets, overlap), cost)

    now_s = run(len(sent), overlaps, [s.bytes for s in sent]).duration_s
    if not overlaps and len(sent) > 1:
        then = run(len(sent), True, [s.bytes for s in sent])
        yield Suggestion(
            "send each bucket while backward computes the next",
            "DDP(model, overlap=True)",
            now_s,
            then.duration_s,
            then,
        )
    then = run(len(sent), overlaps, [s.bytes / 2 for s in sent])
    yield Suggestion("send half the bytes", "a gradient hook in 16 bits", now_s, then.duration_s, then)
    best = min((run(q, True) for q in BUCKETS), key=lambda t: t.duration_s)
    count = len({s.part for s in best.of(0) if s.kind == "all_reduce"})
    if count != len(sent):
        how = f"DDP(model, bucket_bytes={-(-size // count)})"
        what = f"exchange {count} equal bucket(s) instead of {len(sent)}, overlapped"
        yield Suggestion(what, how, now_s, best.duration_s, best)


def _last_step(trace: Trace) -> list[list[Span]]:
    """The spans of the last step, by rank; no step of a run is less like the others than the first."""
    found = []
    for rank in range(trace.ranks):
        start, end = windows(trace, rank)[-1][1]
        found.append([s for s in trace.of(rank) if start <= to_ns(s.start_s) < end and s.lane != MARK])
    return found


def _took(spans: Sequence[Span], kind: str) -> float:
    return sum(s.end_s - s.start_s for s in spans if s.kind == kind)


def fitted(sent: Sequence[Span], trace: Trace) -> Link:
    """The link that fits the recorded all-reduces: their bytes against the shortest time of each among the ranks."""
    times: dict[tuple, float] = {}
    for s in trace.spans:
        if s.kind == "all_reduce":
            times[s.part, s.mb] = min(times.get((s.part, s.mb), s.end_s - s.start_s), s.end_s - s.start_s)
    points = [(s.bytes, max(times[s.part, s.mb], 1e-9)) for s in sent]
    x, y = fmean(size for size, _ in points), fmean(time for _, time in points)
    spread = sum((size - x) ** 2 for size, _ in points)
    slope = sum((size - x) * (time - y) for size, time in points) / spread if spread else y / x
    slope = min(max(slope, 0.0), y / x) or y / x  # neither a negative latency nor a negative bandwidth
    rounds, share = 2 * (trace.ranks - 1), 2 * (trace.ranks - 1) / trace.ranks
    return Link(max(0.0, y - slope * x) / rounds, share / slope)


def pipelines(trace: Trace) -> Iterator[Suggestion]:
    """More microbatches of the same batch, and other schedules, where the trace has the passes of a pipeline."""
    step = _last_step(trace)
    passes = [[s for s in own if s.kind in NAMES] for own in step]
    stages = {s.part for s in chain(*passes)}
    p = trace.ranks
    if p < 2 or stages != set(range(p)) or any({s.part for s in own} != {r} for r, own in enumerate(passes)):
        return
    m = len({s.mb for s in passes[0]})
    first = min(s.mb for s in passes[0])
    each = Counter(s.kind for s in passes[0])
    if not each["F"] or len({each[kind] for kind in each}) > 1:
        return
    forward = [_took(own, "F") / m for own in passes]
    backward = [sum(_took(own, kind) for kind in "BIW") / m for own in passes]
    message = [s.end_s - s.start_s for s in chain(*step) if s.kind == "send"]
    message_s = median(message) if message else 0.0

    def run(plan: Plan, shares: float, chunks: int = 1) -> Trace:
        def seconds(op: Op) -> float:
            time_s = forward[op.rank] if op.kind == "F" else backward[op.rank] / (1 if op.kind == "B" else 2)
            return time_s * shares

        cost = _Passes(seconds, message_s * (shares if chunks == 1 else 1.0))
        return simulate(with_messages(plan) if message else plan, cost)

    rows = [[Op(s.rank, s.kind, s.part, s.mb - first) for s in own] for own in passes]
    now_s = run(with_needs(rows), 1.0).duration_s
    options = [
        (
            f"cut the same batch into {2 * m} microbatches, if half of one takes half the time",
            f"one_f_one_b({p}, {2 * m})",
            one_f_one_b(p, 2 * m),
            0.5,
            1,
        ),
        ("split each backward in two (zero bubble)", f"zb_h1({p}, {m})", zb_h1(p, m), 1.0, 1),
    ]
    if m % p == 0:
        plan = interleaved(p, m, 2)
        options.append(("give each rank two half stages", f"interleaved({p}, {m}, 2)", plan, 0.5, 2))
    for what, how, plan, shares, chunks in options:
        then = run(plan, shares, chunks)
        yield Suggestion(what, how, now_s, then.duration_s, then)


class _Passes(CostModel):
    """Seconds of a pass by a function, those of a message by a number."""

    def __init__(self, of_pass: Callable[[Op], float], message_s: float) -> None:
        self.of_pass, self.message_s = of_pass, message_s

    def seconds(self, op: Op) -> float:
        """Of the pass or the message."""
        return self.of_pass(op) if op.kind in NAMES else self.message_s
