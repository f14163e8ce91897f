"""Chapter 14: read a trace, and say what bounds the step, whose doing it is, and what it costs."""

from collections.abc import Callable
from typing import Any

from parallel_lab.grading.bottlenecks import planted, with_launches
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.performance import PARTS, Breakdown, verdict
from parallel_lab.plan import COMPUTE
from parallel_lab.trace import Trace

CLOSE_S = 1e-7  # times are whole microseconds, and a step some thousands
CAUSES = ("compute", "data", "exposed", "straggler", "bubble", "launch")
WAITS = "Who waits longest in an all-reduce came first. Whom do the others wait for: who waits least?"
TRANSFER = (
    "An all-reduce begins when a rank calls it. Until the last one has called, no byte moves: that is no network."
)
HIDDEN = "Communication beside computing costs nothing. Take only what runs while the rank computes nothing."
SMALL = "What is below a tenth of the step is not worth a name: then computing bounds it."
IDLE = "Not every pause is a bubble: was there a batch to load, a rank to wait for, a kernel to be launched?"
TOTAL = "That is the sum of all ranks: what does the mean rank lose in its step?"
Mistake = Callable[[Trace, Breakdown, dict], Any]


def asked(outcome: Outcome) -> list:
    """What is right of the trace of each rank."""
    return [_right(*given) for given in outcome.inputs]


def _right(trace: Trace) -> dict:
    parts = Breakdown.of(with_launches(trace))
    cause, rank = verdict(parts)
    return {"cause": cause, "rank": rank if cause == "straggler" else -1, "lost_s": parts.seconds(cause)}


def _sent_s(trace: Trace) -> float:
    """Seconds in which a rank has anything under way, whatever it does beside."""
    busy = sum(trace.busy_s(rank, lane) for rank in range(trace.ranks) for lane in ("send", "recv"))
    return busy / trace.ranks


def _idle_s(trace: Trace) -> float:
    return sum(trace.duration_s - trace.busy_s(rank, COMPUTE) for rank in range(trace.ranks)) / trace.ranks


# What a usual mistake makes of (trace, parts, right), by what is said to it; of the cause a word, else seconds.
OF_CAUSE: dict[str, Mistake] = {
    TRANSFER: lambda trace, parts, right: "exposed" if right["cause"] == "straggler" else None,
    SMALL: lambda trace, parts, right: max(PARTS[1:], key=parts.share) if right["cause"] == "compute" else None,
    IDLE: lambda trace, parts, right: "bubble",
}
OF_SECONDS: dict[str, Mistake] = {
    TOTAL: lambda trace, parts, right: right["lost_s"] * trace.ranks,
    TRANSFER: lambda trace, parts, right: parts.seconds("straggler") + parts.seconds("exposed"),
    HIDDEN: lambda trace, parts, right: _sent_s(trace),
    IDLE: lambda trace, parts, right: _idle_s(trace),
}


@grader
def finds(outcome: Outcome) -> None:
    """Cause, rank and seconds are right."""
    (trace,), got, right = outcome.inputs[0], outcome.results[0], outcome.expected[0]
    where = f"a trace of {trace.ranks} rank{'s' * (trace.ranks > 1)}"
    if type(got) is not dict or not {"cause", "rank", "lost_s"} <= got.keys():
        raise Wrong(f"{where}: got {name(got)}, expected a dict with cause, rank and lost_s")
    parts = Breakdown.of(with_launches(trace))
    cause, rank, lost_s = (got[key] for key in ("cause", "rank", "lost_s"))
    if cause not in CAUSES:
        raise Wrong(f"{where}: the cause is {cause!r}, expected one of {', '.join(CAUSES)}")
    if cause != right["cause"]:
        said = _said(OF_CAUSE, lambda wrong: wrong == cause, trace, parts, right)
        raise Wrong(f"{where}: the cause is {cause!r}, expected {right['cause']!r}", said)
    if rank != right["rank"]:
        advice = WAITS if right["rank"] >= 0 else "Only for a straggler there is one rank to name; else it is -1."
        raise Wrong(f"{where}: {cause} is laid to rank {rank!r}, expected {right['rank']}", advice)
    if type(lost_s) not in (int, float) or not abs(lost_s - right["lost_s"]) <= CLOSE_S:
        said = _said(OF_SECONDS, lambda wrong: abs(wrong - lost_s) <= CLOSE_S, trace, parts, right)
        seen = f"{1e3 * lost_s:.4g} ms" if isinstance(lost_s, int | float) else name(lost_s)
        raise Wrong(f"{where}: {cause} costs {seen}, expected {1e3 * right['lost_s']:.4g} ms", said)


def _said(mistakes: dict[str, Mistake], fits: Callable, trace: Trace, parts: Breakdown, right: dict) -> str:
    """The advice for the mistake that comes to the same."""
    found = ((advice, mistake(trace, parts, right)) for advice, mistake in mistakes.items())
    general = "Draw the failing trace, take one rank, and go through its time from left to right."
    return next((advice for advice, wrong in found if wrong is not None and fits(wrong)), general)


def _on(plant: str) -> list:
    return on(1, finds(), plant=plant)


EXERCISE = Exercise(
    name="find_bottleneck",
    given=planted,
    expected=asked,
    device="cpu",
    tests={
        # Step 1
        "A loader that all ranks wait for": _on("data"),
        "Communication that nothing hides, beside some that is hidden": _on("exposed"),
        "A step in which nothing but computing is worth a name": _on("healthy"),
        # Step 2
        "A rank that computes longer than the others": _on("straggler"),
        "A rank whose batch comes late": _on("late loader"),
        # Step 3
        "The bubble of a pipeline": _on("bubble"),
        "Kernels that are shorter than their launch": _on("launch"),
    },
)
