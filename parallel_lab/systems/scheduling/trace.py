"""Jobs of real clusters: the originals where they are there, and a summary of them to draw from where they are not.

| name     | what                                                          | original                                  |
|----------|---------------------------------------------------------------|-------------------------------------------|
| gavel    | 2,000 jobs of a virtual cluster of Philly, with durations on  | stanford-futuredata/gavel @c4fa400,       |
|          | V100s computed from steps and measured throughputs            | scheduler/traces/msr/seed=0/ee9e8c.trace  |
| philly   | 82,247 jobs of Microsoft's Philly, September to December 2017 | petuum/adaptdl @osdi21-artifact,          |
|          | (Jeon et al., ATC 2019)                                       | simulator/traces/philly.csv               |

The package has none of the originals. `summary.csv` has, of gavel and philly, how many jobs ask for how many GPUs, and
quantiles of their durations and of the time between arrivals; `drawn` makes jobs from it. Such a trace has the shares
and the tails of the original. It has neither its bursts nor any link between a job and the next, so figures of a drawn
trace are not figures of the original. `openb` has tasks and machines of a third cluster.
"""

import csv
import gzip
import io
import os
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from parallel_lab.systems.scheduling.cluster import Job

SUMMARY = Path(__file__).with_name("summary.csv")
PARTS = (0, 0.01, 0.025, *(n / 20 for n in range(1, 19)), 0.925, 0.95, 0.975, 0.99, 0.995, 1)  # of the quantiles
ARRIVALS = 0  # in place of a number of GPUs: the row of the time between two arrivals


def gavel(path: str | os.PathLike) -> list[Job]:
    """The jobs of gavel's file, as a table with the columns arrival_s, gpus and duration_v100_s."""
    return [
        Job(str(number), float(row["arrival_s"]), int(row["gpus"]), float(row["duration_v100_s"]))
        for number, row in enumerate(rows_of(path))
    ]


def philly(path: str | os.PathLike, cluster: str = "", *, since: str = "", until: str = "9") -> list[Job]:
    """The jobs of Philly by arrival; the first one of those that are asked for arrives at 0.

    Args:
        path: of the table with the columns timestamp, duration, num_gpus and cluster.
        cluster: of one virtual cluster alone; of all without it. It stands in `Job.user`.
        since: the first day or second, as text `2017-10-01`.
        until: the day or second after the last.
    """
    rows = [row for row in rows_of(path) if row["cluster"].startswith(cluster) and since <= row["timestamp"] < until]
    rows.sort(key=lambda row: row["timestamp"])
    came = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    return [
        Job(str(number), (at - came[0]).total_seconds(), int(row["num_gpus"]), float(row["duration"]), row["cluster"])
        for number, (at, row) in enumerate(zip(came, rows, strict=True))
    ]


def rows_of(path: str | os.PathLike) -> Iterator[dict[str, str]]:
    """The rows of a table, compressed or not; lines that begin with # are its head."""
    data = Path(path).read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    return csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#"))


def summarized(name: str, jobs: Sequence[Job]) -> list[list]:
    """The rows of a trace in the summary: for each number of GPUs how many jobs, and the quantiles of durations."""
    arrivals = sorted(job.arrival_s for job in jobs)
    groups = {ARRIVALS: [later - earlier for earlier, later in pairwise(arrivals)]}
    for job in jobs:
        groups.setdefault(job.gpus, []).append(job.duration_s)
    return [[name, gpus, len(values), *quantiles(values)] for gpus, values in sorted(groups.items())]


def quantiles(values: Sequence[float]) -> list[float]:
    """The quantiles at `PARTS`, between neighbors on a line, to four digits."""
    values = sorted(values)
    found = []
    for part in PARTS:
        below = min(int(part * (len(values) - 1)), len(values) - 2) if len(values) > 1 else 0
        rest, upper = part * (len(values) - 1) - below, values[min(below + 1, len(values) - 1)]
        found.append(float(f"{values[below] + rest * (upper - values[below]):.4g}"))
    return found


def drawn(name: str, count: int, *, seed: int, load_gpus: float | None = None) -> list[Job]:
    """Jobs with the numbers of GPUs, the durations and the gaps of a trace's summary, drawn independently.

    Args:
        name: gavel or philly.
        count: how many.
        seed: of the dice.
        load_gpus: the mean number of GPUs that would be busy; arrivals are stretched to it. As it comes without it.
    """
    dice, rows = random.Random(seed), {int(row["gpus"]): row for row in rows_of(SUMMARY) if row["trace"] == name}
    if not rows:
        raise ValueError(f"no trace {name!r} in the summary; it has gavel and philly")
    values = {gpus: [float(row[f"q{part:g}"]) for part in PARTS] for gpus, row in rows.items()}
    gaps = values.pop(ARRIVALS)
    asked = dice.choices(list(values), [int(rows[gpus]["count"]) for gpus in values], k=count)
    arrivals = list(accumulate(_one(gaps, dice) for _ in asked))
    jobs = [
        Job(str(number), at_s, gpus, max(1.0, _one(values[gpus], dice)))
        for number, (gpus, at_s) in enumerate(zip(asked, arrivals, strict=True))
    ]
    if load_gpus is None:
        return jobs
    stretch = load(jobs) / load_gpus
    return [replace(job, arrival_s=job.arrival_s * stretch) for job in jobs]


def _one(values: Sequence[float], dice: random.Random) -> float:
    """A value by the inverse of the distribution: a part, and the line between the two quantiles beside it."""
    part = dice.random()
    place = min(bisect_right(PARTS, part), len(PARTS) - 1)
    rest = (part - PARTS[place - 1]) / (PARTS[place] - PARTS[place - 1])
    return values[place - 1] + rest * (values[place] - values[place - 1])


class Published(NamedTuple):
    """Mean completion times in seconds on one of Philly's virtual clusters, as published for Helios."""

    cluster: str
    nodes: int
    fifo: float
    sjf: float
    srtf: float
    qssf: float


def published() -> list[Published]:
    """The rows of `published.csv`, whose head names the source."""
    rows = rows_of(SUMMARY.with_name("published.csv"))
    return [Published(cluster, int(nodes), *map(float, means)) for cluster, nodes, *means in map(dict.values, rows)]


def load(jobs: Sequence[Job]) -> float:
    """The mean number of GPUs that the jobs keep busy if nobody waits: their work over the time in which they came."""
    arrivals = [job.arrival_s for job in jobs]
    return sum(job.work_gpu_s for job in jobs) / (max(arrivals) - min(arrivals))


def with_limits(jobs: Iterable[Job], most: float, *, seed: int) -> list[Job]:
    """The same jobs with limits as users give them: the duration times 1 to `most`, each size equally likely."""
    dice = random.Random(seed)
    return [replace(job, limit_s=job.duration_s * most ** dice.random()) for job in jobs]
