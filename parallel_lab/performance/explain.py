"""`explain(run)`: what bounds a step, in sentences, and what to try, each suggestion with its price in the simulator.

The verdict follows one rule. Of what is not computing, the part with the largest share of the ranks' time is the
bottleneck, if the share is at least `worth`; else the step is bound by computing. Who is late or loads alone is named.

A price is the step that the simulator gives with one thing changed, beside what it gives with nothing changed. Two
models price: the recorded step itself (`replay`), and, where the trace shows gradient buckets or the passes of a
pipeline, the technique's own plan with the seconds that were recorded. Both are models: try the best one and measure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from parallel_lab.network import Link
from parallel_lab.performance.breakdown import PARTS, Breakdown
from parallel_lab.performance.replay import WAITING, Replay, replay
from parallel_lab.performance.suggestions import Suggestion, buckets, pipelines
from parallel_lab.performance.torch_profile import profile_trace
from parallel_lab.runtime import Run
from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_seconds, format_share

WORDS = {
    "compute": "computing",
    "data": "waiting for the next batch",
    "launch": "launching kernels one by one",
    "copy": "copying memory",
    "straggler": "waiting for the slowest rank",
    "bubble": "the bubble of the pipeline",
    "exposed": "communication that nothing hides",
    "other": "time that no span explains",
}
UNEVEN = 2.0  # one rank has so many times the mean of the others: then it is its own doing


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; its text is what it prints.

    Attributes:
        breakdown: the parts of each step.
        cause: the part that bounds the step, one of `PARTS`.
        rank: whose doing it is; -1 where it is all ranks'.
        share: of the ranks' time that the cause takes, from 0 to 1.
        sentences: what bounds the step.
        suggestions: what to try, the largest gain first.
    """

    breakdown: Breakdown
    cause: str
    rank: int
    share: float
    sentences: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]

    def __str__(self) -> str:
        tried = [f"{number}. {each}" for number, each in enumerate(self.suggestions, 1)]
        head = ["What to try; the times of steps are the simulator's:"] if tried else []
        return "\n".join([*self.sentences, *head, *tried])

    __repr__ = __str__


def explain(source: Run | Trace | str | Path, *, link: Link | None = None, worth: float = 0.1) -> Explanation:
    """What bounds the step of a run, a trace, or a profile of torch.profiler (the path of its file).

    Args:
        source: what was recorded. Notes of the kind `step` tell steps apart (see `Breakdown.of`).
        link: what the ranks talk over, for prices of gradient exchange; by default the run's emulated one, or the one
            that fits the recorded collectives.
        worth: the share of a step from which on a part that is no computing is called the bottleneck.

    Raises:
        ValueError: nothing was recorded.
    """
    trace = source.trace if isinstance(source, Run) else source
    trace = profile_trace(trace) if isinstance(trace, str | Path) else trace
    if link is None and isinstance(source, Run) and isinstance(source.link, Link):
        link = source.link
    parts = Breakdown.of(trace)
    cause, rank = verdict(parts, worth)
    suggestions = sorted(_suggestions(trace, cause, rank, link), key=lambda each: each.then_s - each.now_s)
    return Explanation(
        parts, cause, rank, parts.share(cause), tuple(_sentences(parts, cause, rank)), tuple(suggestions)
    )


def verdict(parts: Breakdown, worth: float = 0.1) -> tuple[str, int]:
    """The part that bounds the step, and whose doing it is; -1 for all ranks'."""
    cause = max(PARTS[1:], key=parts.share)
    if parts.share(cause) < worth:
        return "compute", -1
    ranks = range(parts.ranks)
    if cause == "straggler":  # who waits least is who is waited for
        return cause, min(ranks, key=lambda rank: parts.seconds("straggler", rank))
    if cause in ("exposed", "bubble") or parts.ranks == 1:
        return cause, -1
    most = max(ranks, key=lambda rank: parts.seconds(cause, rank))
    others = fmean(parts.seconds(cause, rank) for rank in ranks if rank != most)
    return cause, most if parts.seconds(cause, most) > UNEVEN * others else -1


def _sentences(parts: Breakdown, cause: str, rank: int) -> Iterator[str]:
    """What the breakdown says, the cause first."""

    def amount(part: str, of: int | None = None) -> str:
        return f"{format_seconds(parts.seconds(part, of))} a step, {format_share(parts.share(part, of))}"

    how = "in the simulation" if parts.simulated else "as it was measured"
    yield f"A step takes {format_seconds(parts.step_s)} {how}, the mean of all ranks."
    if cause == "compute":
        yield f"It is bound by computing: {amount('compute')}."
    else:
        who = f" on rank {rank}" if rank >= 0 and cause != "straggler" else ""
        yield f"The largest loss is {WORDS[cause]}{who}: {amount(cause, rank if who else None)}."
        yield f"Computing takes {amount('compute')}."
    if cause == "straggler":
        doing = max((p for p in PARTS if p not in WAITING), key=lambda p: _excess(parts, p, rank))
        yield (
            f"All wait for rank {rank}: it spends {format_seconds(_excess(parts, doing, rank))} a step more than the"
            f" others on {WORDS[doing]}."
        )
    if hidden := parts.seconds("overlapped"):
        yield f"{format_seconds(hidden)} of communication run beside computing and cost nothing here."
    for part in PARTS[1:]:
        if part != cause and parts.share(part) >= 0.05:
            yield f"Then comes {WORDS[part]}: {amount(part)}."


def _excess(parts: Breakdown, part: str, rank: int) -> float:
    """Seconds a step of `part` that `rank` has more than the median of the others."""
    others = [parts.seconds(part, other) for other in range(parts.ranks) if other != rank]
    return parts.seconds(part, rank) - (median(others) if others else 0.0)


def _suggestions(trace: Trace, cause: str, rank: int, link: Link | None) -> Iterator[Suggestion]:
    """What there is to try, for every part that the trace has."""
    recorded = replay(trace)
    now_s, parts = recorded.step_s, set(recorded.part_of.values())

    def price(what: str, how: str, changed: Replay) -> Suggestion:
        return Suggestion(what, how, now_s, (then := changed.run()).duration_s, then)

    if cause == "straggler":
        usual = median(recorded.host_s(other) for other in range(trace.ranks) if other != rank)
        factors = dict.fromkeys(PARTS, min(1.0, usual / (recorded.host_s(rank) or 1.0))) | {"exposed": 1.0}
        how = f"look at what rank {rank} does alone: its data, its tokens, its clock, its neighbors on the machine"
        yield price(f"make rank {rank} as fast as the others", how, recorded.scaled(factors, rank))
    if "data" in parts:
        how = "`performance.Prefetcher(batches, ahead=2)`, or DataLoader(num_workers=2, prefetch_factor=2)"
        yield price("load the next batch beside the computation", how, recorded.beside("data"))
    if "launch" in parts:
        how = "torch.compile, CUDA graphs, or larger batches; this is the bound with no gap left"
        yield price("launch many kernels at once", how, recorded.scaled({"launch": 0.0}))
    exchanges = list(buckets(trace, recorded, link))
    if "exposed" in parts and not exchanges:
        how = "a faster link, or 16 bits a number instead of 32, which halves the bytes and not the latency"
        yield price("communicate in half the time", how, recorded.scaled({"exposed": 0.5}))
    if cause == "compute":
        how = "bfloat16 where the processor has units for it, a fused kernel, less recomputation"
        yield price("compute twice as fast", how, recorded.scaled({"compute": 0.5}))
    yield from exchanges
    yield from pipelines(trace, recorded)
