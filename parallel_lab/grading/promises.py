"""Graders for who starts in a cluster's line: whole jobs, the front first, and a promise to the head that is kept.

What a decision does to the promise can be computed from what it was shown, so no order of backfilling is asked for.
`backfilling` runs the answer in a rank and notes its decisions.
"""

import math
from collections.abc import Iterator

from parallel_lab.grading.backfilling import Event
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.systems.scheduling import promise

WANTED = "Return a dict: the name of each job that starts now, and its GPUs."


def _events(outcome: Outcome) -> Iterator[Event]:
    return (Event(*fields) for cluster in outcome.results[0] for fields in cluster)


@grader
def starts_whole(outcome: Outcome, shape: str, part: str, over: str) -> None:
    """Every decision starts jobs that wait, each with all of its GPUs, and all fit."""
    for event in _events(outcome):
        if not isinstance(event.starts, dict):
            raise Wrong(f"{event}; expected a dict, and got {name(event.starts)}", shape)
        asked = {job: gpus for job, gpus, _ in event.waiting}
        for job, gpus in event.starts.items():
            if job not in asked:
                raise Wrong(f"{event}; the answer starts {job!r}, which does not wait", shape)
            if gpus != asked[job]:
                less = isinstance(gpus, int) and gpus < asked[job]
                seen = f"{event}; the answer gives {job} {name(gpus)} GPUs, and it asks for {asked[job]}"
                raise Wrong(seen, part if less else shape)
        if sum(event.starts.values()) > event.free:
            raise Wrong(f"{event}; the answer gives away {sum(event.starts.values())} GPUs", over)


@grader
def starts_the_head(outcome: Outcome, advice: str) -> None:
    """Whoever is first in line and fits starts, then the next one, up to the first that does not fit."""
    for event in _events(outcome):
        free = event.free
        for job, gpus, _ in event.waiting:
            if gpus > free:
                break
            if job not in event.starts:
                raise Wrong(f"{event}; the answer starts {_named(event)}, and {job} fits", advice)
            free -= gpus


@grader
def keeps_the_promise(outcome: Outcome, skips: str, spare: str) -> None:
    """The head can start as soon as it could if nobody behind it started."""
    for event in _events(outcome):
        found = _behind(event)
        if found is None:
            continue
        head, due_s, behind, _ = found
        late_s = _due(event, head, *behind.values())
        if late_s > due_s:
            alone = [job for job in behind if _due(event, head, behind[job]) > due_s]
            when = f"at {late_s:.0f} s" if late_s < math.inf else "at no time that is known"
            with_them = f"and with {', '.join(alone or behind)} started only {when}"
            raise Wrong(f"{event}; {head[0]} can start at {due_s:.0f} s, {with_them}", skips if alone else spare)


@grader
def fills_up(outcome: Outcome, over: str, spare: str, *, beyond: bool) -> None:
    """Nobody waits who could start without a delay of the head; `beyond`: also who would run on beside it."""
    for event in _events(outcome):
        found = _behind(event)
        if found is None:
            continue
        head, due_s, behind, rest = found
        free = event.free - sum(event.starts.values())
        for job, gpus, limit_s in rest:
            ends_before = event.now_s + limit_s <= due_s
            if gpus > free or not (ends_before or beyond):
                continue
            if _due(event, head, *behind.values(), (gpus, limit_s)) <= due_s:
                why = "is over before" if ends_before else "fits beside it"
                seen = (
                    f"{event}; {head[0]} can start at {due_s:.0f} s, {job} {why}, and the answer starts {_named(event)}"
                )
                raise Wrong(seen, over if ends_before else spare)


def _ends(event: Event, others: list[tuple[int, float]]) -> list[tuple[float, int]]:
    """Until when at the latest who holds how many GPUs: those that run, and others, given as (GPUs, limit)."""
    held = [(end_s, gpus) for _, gpus, end_s in event.running]
    return held + [(event.now_s + limit_s, gpus) for gpus, limit_s in others]


def _behind(event: Event) -> tuple[tuple[str, int, float], float, dict[str, tuple[int, float]], list] | None:
    """The head that does not fit, when it could start, who starts behind it, and who does not; None without a head."""
    free = event.free
    line = list(event.waiting)
    while line and line[0][1] <= free:
        free -= line.pop(0)[1]
    if not line:
        return None
    head, *line = line
    due_s = _due(event, head)
    behind = {job: (gpus, limit_s) for job, gpus, limit_s in line if job in event.starts}
    return head, due_s, behind, [one for one in line if one[0] not in behind]


def _due(event: Event, head: tuple[str, int, float], *behind: tuple[int, float]) -> float:
    """When the head could start by the limits of all, if these start behind it."""
    held = [(gpus, limit_s) for _, gpus, limit_s in event.waiting[: event.waiting.index(head)]] + list(behind)
    return promise(head[1], event.free - sum(gpus for gpus, _ in held), _ends(event, held))[0]


def _named(event: Event) -> str:
    return ", ".join(event.starts) or "nobody"
