"""The task of chapter 15 on a cluster's line: the driver, which asks learner code at each event who starts.

As in `drivers`, it runs in a rank and observes: each decision is noted with what it was shown, and `promises` judges
them. The cluster is a small one of its own, whose jobs are never stopped, because a rank of an exercise loads no room
that has the answer. Ranks import this module.
"""

import math
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from parallel_lab.grading.rank_side import Case


@dataclass(frozen=True)
class Asked:
    """A job of the cluster: the limit is what is known, how long it lasts is not."""

    name: str
    arrives_s: float
    gpus: int
    lasts_s: float
    limit_s: float


@dataclass(frozen=True)
class Event:
    """What the answer was shown at a moment, and what it answered."""

    now_s: float
    waiting: list[tuple[str, int, float]]  # (name, GPUs, limit), in the order of arrival
    running: list[tuple[str, int, float]]  # (name, GPUs, latest end)
    free: int
    starts: Any

    def possible(self) -> bool:
        """Whether the answer can be carried out at all."""
        asked = {job: gpus for job, gpus, _ in self.waiting}
        right = isinstance(self.starts, dict) and all(asked.get(job) == gpus for job, gpus in self.starts.items())
        return right and sum(self.starts.values()) <= self.free

    def __str__(self) -> str:
        line = ", ".join(f"{job} asks for {gpus} (limit {limit_s:.0f} s)" for job, gpus, limit_s in self.waiting[:4])
        more = f" and {len(self.waiting) - 4} more" if len(self.waiting) > 4 else ""
        held = ", ".join(f"{job} holds {gpus} until {end_s:.0f} s" for job, gpus, end_s in self.running[:4])
        return f"at {self.now_s:.0f} s {self.free} GPUs are free; {held or 'nobody runs'}; in line: {line}{more}"


def lines(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """The jobs of several clusters, of `gpus` GPUs each; of `kinds` as a real cluster has them, where there are any."""
    dice = random.Random(generator.initial_seed())
    made = _real if case["kinds"] else _small
    return ([made(dice, case) for _ in range(case["clusters"])],)


def _small(dice: random.Random, case: Case) -> list[Asked]:
    """Forty jobs; small ones come most often. Those of `first`, (GPUs, seconds), come before them, in short order."""
    now_s, jobs = 0.0, []
    for number in range(40):
        if number < len(case["first"]):
            now_s += dice.uniform(0.1, 2)
            gpus, lasts_s = case["first"][number][0], case["first"][number][1] * dice.uniform(0.8, 1)
        else:
            now_s += dice.expovariate(1 / 12)
            gpus, lasts_s = dice.choice((1, 1, 2, 3, 4, 6, 8)), dice.uniform(5, 40)
        jobs.append(Asked(f"j{number}", now_s, gpus, lasts_s, lasts_s * case["most"] ** dice.random()))
    return jobs


def _real(dice: random.Random, case: Case) -> list[Asked]:
    """Jobs drawn from `kinds`, (GPUs, duration), at a load of nine tenths."""
    drawn = dice.choices(case["kinds"], k=150)
    gap_s = sum(gpus * lasts_s for gpus, lasts_s in drawn) / len(drawn) / (0.9 * case["gpus"])
    now_s, jobs = 0.0, []
    for number, (gpus, lasts_s) in enumerate(drawn):
        now_s += dice.expovariate(1 / gap_s)
        jobs.append(Asked(f"j{number}", now_s, gpus, lasts_s, lasts_s * case["most"] ** dice.random()))
    return jobs


def observe(fn: Callable, case: Case, clusters: list[list[Asked]]) -> list[list[list]]:
    """The fields of each decision on each cluster, up to the first that cannot be carried out."""
    return [[list(vars(event).values()) for event in decisions(fn, jobs, case["gpus"])] for jobs in clusters]


def decisions(fn: Callable, jobs: list[Asked], gpus: int) -> list[Event]:
    """Asks `fn` whenever a job has come or ended, and does what it says while that is possible."""
    events, coming, line, held = [], list(jobs), [], {}  # of who is held: the end, and the latest end
    while coming or held:
        arrives_s = coming[0].arrives_s if coming else math.inf
        now_s = min([arrives_s, *(end_s for end_s, _ in held.values())])
        while coming and coming[0].arrives_s <= now_s:
            line.append(coming.pop(0))
        held = {job: ends for job, ends in held.items() if ends[0] > now_s}
        free = gpus - sum(job.gpus for job in held)
        waiting = [(job.name, job.gpus, job.limit_s) for job in line]
        running = [(job.name, job.gpus, latest_s) for job, (_, latest_s) in held.items()]
        events.append(Event(now_s, waiting, running, free, _asked(fn, now_s, waiting, running, free)))
        if not events[-1].possible():
            break
        held |= {job: (now_s + job.lasts_s, now_s + job.limit_s) for job in line if job.name in events[-1].starts}
        line = [job for job in line if job.name not in events[-1].starts]
    return events


def _asked(fn: Callable, *shown: Any) -> Any:
    try:
        starts = fn(*deepcopy(shown))
        return dict(starts) if isinstance(starts, dict) else starts
    except Exception as error:
        error.add_note(f"It was called with {', '.join(map(repr, shown))}.")
        raise
