"""Suggestions that need another plan: of gradient exchange and of pipelines, with the seconds that were recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, median
from typing import NamedTuple

from parallel_lab.data_parallel import ddp
from parallel_lab.network import AlphaBeta, Link
from parallel_lab.performance.breakdown import settled, windows
from parallel_lab.performance.replay import Replay
from parallel_lab.performance.stretches import to_ns
from parallel_lab.pipeline import interleaved, one_f_one_b, zb_h1
from parallel_lab.pipeline.messages import with_messages
from parallel_lab.pipeline.needs import with_needs
from parallel_lab.plan import NAMES, Op, Plan
from parallel_lab.simulate import PassCost, simulate
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


@dataclass(frozen=True)
class _Exchange:
    """A data-parallel step: the seconds of the slowest rank, and the buckets that it exchanges over a link."""

    ranks: int
    forward_s: float  # with all that the host does before the backward pass
    backward_s: float
    update_s: float
    link: Link
    bucket_bytes: Sequence[float]
    overlap: bool

    def run(self, bucket_bytes: Sequence[float], overlap: bool) -> Trace:
        """The step with these buckets in the simulator."""
        seconds = {"F": self.forward_s, "B": self.backward_s / len(bucket_bytes), "update": self.update_s}
        cost = AlphaBeta.over(self.link, bucket_bytes, seconds)
        return simulate(ddp.plan(self.ranks, len(bucket_bytes), overlap), cost)


def buckets(trace: Trace, recorded: Replay, link: Link | None) -> Iterator[Suggestion]:
    """Overlap, fewer bytes, and other numbers of buckets, where a step exchanges gradients by all-reduces."""
    step = _exchange(trace, recorded, link)
    if step is None:
        return
    sizes, total, count = step.bucket_bytes, sum(step.bucket_bytes), len(step.bucket_bytes)
    now_s = step.run(sizes, step.overlap).duration_s

    def priced(what: str, how: str, then: Trace) -> Suggestion:
        return Suggestion(what, how, now_s, then.duration_s, then)

    if not step.overlap and count > 1:
        what = "send each bucket while backward computes the next"
        yield priced(what, "DDP(model, overlap=True)", step.run(sizes, True))
    then = step.run([size / 2 for size in sizes], step.overlap)
    yield priced("send half the bytes", "a gradient hook in 16 bits", then)
    options = {q: step.run([total / q] * q, True) for q in BUCKETS}
    best = min(options, key=lambda q: options[q].duration_s)
    if best != count:
        what = f"exchange {best} equal bucket{'s' * (best > 1)} instead of {count}, overlapped"
        yield priced(what, f"DDP(model, bucket_bytes={round(total / best)})", options[best])


def _exchange(trace: Trace, recorded: Replay, link: Link | None) -> _Exchange | None:
    """What the step has of data parallelism; None where it has another form."""
    step = _spans(trace, recorded.step)
    sent = [s for s in step[0] if s.kind == "all_reduce" and s.phase in ("backward", "") and s.bytes]
    slow = max(range(trace.ranks), key=recorded.host_s)
    backward_s, update_s = _took(step[slow], "B"), _took(step[slow], "update")
    if trace.ranks < 2 or not sent or not backward_s or any(s.kind in ("send", "recv") for s in chain(*step)):
        return None
    before_s = max(0.0, recorded.host_s(slow) - backward_s - update_s)
    last_s = max((s.end_s for s in step[0] if s.kind == "B"), default=0.0)
    overlaps = any(s.start_s < last_s for s in sent[:-1])
    sizes = [s.bytes for s in sent]
    return _Exchange(trace.ranks, before_s, backward_s, update_s, link or fitted(trace, sent), sizes, overlaps)


def _spans(trace: Trace, step: int) -> list[list[Span]]:
    """The spans of a step, by rank, without notes."""
    found, trace = [], settled(trace)
    for rank in range(trace.ranks):
        start, end = dict(windows(trace, rank))[step]
        found.append([s for s in trace.of(rank) if start <= to_ns(s.start_s) < end and s.lane != MARK])
    return found


def _took(spans: Sequence[Span], kinds: str) -> float:
    return sum(s.end_s - s.start_s for s in spans if s.kind in (kinds, *kinds))


def fitted(trace: Trace, sent: Sequence[Span]) -> Link:
    """The link whose ring fits the all-reduces `sent`: bytes against the shortest time that each took on any rank."""
    times: dict[tuple, float] = {}
    for s in trace.spans:
        if s.kind == "all_reduce":
            times[s.part, s.mb] = min(times.get((s.part, s.mb), s.end_s - s.start_s), s.end_s - s.start_s)
    points = [(s.bytes, max(times[s.part, s.mb], 1e-9)) for s in sent]
    x, y = fmean(size for size, _ in points), fmean(time for _, time in points)
    spread = sum((size - x) ** 2 for size, _ in points)
    slope = sum((size - x) * (time - y) for size, time in points) / spread if spread else y / x
    slope = slope if 0 < slope <= y / x else y / x  # neither latency nor bandwidth is negative
    rounds, share = 2 * (trace.ranks - 1), 2 * (trace.ranks - 1) / trace.ranks
    return Link((y - slope * x) / rounds, share / slope)


def pipelines(trace: Trace, recorded: Replay) -> Iterator[Suggestion]:
    """More microbatches of the same batch, and other schedules, where rank r runs the passes of stage r."""
    step = _spans(trace, recorded.step)
    passes = [[s for s in own if s.kind in NAMES] for own in step]
    p, m = trace.ranks, len({s.mb for s in passes[0]})
    if p < 2 or any({s.part for s in own} != {rank} or not _took(own, "F") for rank, own in enumerate(passes)):
        return
    forward = [_took(own, "F") / m for own in passes]
    backward = [_took(own, "BIW") / m for own in passes]
    message_s = median([s.end_s - s.start_s for s in chain(*step) if s.kind == "send"] or [0.0])

    def run(plan: Plan, share: float = 1.0) -> Trace:
        """`plan` with passes that take this share of what they took; part i stands on rank i modulo p."""
        stages = 1 + max(op.part for op in plan)
        f, b = ([seconds[k % p] * share for k in range(stages)] for seconds in (forward, backward))
        half = [seconds / 2 for seconds in b]
        cost = PassCost(f, b, half, half, message_s * (share if stages == p else 1.0))
        return simulate(with_messages(plan) if message_s else plan, cost)

    rows = [[Op(s.rank, s.kind, s.part, s.mb - passes[0][0].mb) for s in own] for own in passes]
    now_s = run(with_needs(rows)).duration_s
    more = f"cut the same batch into {2 * m} microbatches, if half of one takes half the time"
    options = [
        (more, f"one_f_one_b({p}, {2 * m})", run(one_f_one_b(p, 2 * m), 0.5)),
        ("split each backward in two (zero bubble)", f"zb_h1({p}, {m})", run(zb_h1(p, m))),
    ]
    if m % p == 0:
        options.append(("give each rank two half stages", f"interleaved({p}, {m}, 2)", run(interleaved(p, m, 2), 0.5)))
    yield from (Suggestion(what, how, now_s, then.duration_s, then) for what, how, then in options)
