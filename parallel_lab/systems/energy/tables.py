"""Measured power tables of real GPUs: zeus' runs under power caps, and what a cluster of A100 draws.

Zeus (You, Chung and Chowdhury, NSDI 2023) trained six workloads on a V100 and an A40 under power caps, most in steps of
25 W, with many batches, and published seconds per epoch and mean watts, each measured once; and, apart, after how many
epochs each batch reached a target. Acme (Hu et al., NSDI 2024) published how the draw of all its GPUs is distributed,
idle ones included.

The course ships summaries that it made of them (the CSV files beside this one, with source and license at their head);
`read_power`, `read_epochs` and `read_distribution` read the originals, which the heads name.
"""

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean, median

from parallel_lab.systems.energy.caps import Setting

Key = tuple[str, int, str]  # workload, batch, optimizer
TARGETS = {  # as in zeus' evaluation, and a higher one for ShuffleNet, which fewer batches reach
    "cifar100/shufflenetv2": (0.60, 0.65),
    "imagenet/resnet50": (0.65,),
    "librispeech/deepspeech2": (40.0,),
    "movielens-1m/ncf": (0.41,),
    "sentiment140/bert_base_uncased": (0.84,),
    "squad/bert_base_uncased": (84.0,),
}


def read_power(path: Path) -> dict[Key, list[Setting]]:
    """Zeus' `summary_power_*.csv`: of each workload, batch and optimizer the rows (cap, seconds an epoch, watts)."""
    found: dict[Key, list[Setting]] = defaultdict(list)
    for row in _rows(path):
        key = (_workload(row), int(row["batch_size"]), row["optimizer"])
        found[key].append(Setting(float(row["power_limit"]), float(row["time_per_epoch"]), float(row["average_power"])))
    return {key: sorted(rows, key=lambda each: each.limit_w) for key, rows in found.items()}


def read_epochs(path: Path) -> dict[tuple[str, int, str, float], list[float]]:
    """Zeus' `summary_train.csv`: after how many epochs each run reached a target; infinity where it did not."""
    found: dict[tuple[str, int, str, float], list[float]] = defaultdict(list)
    for row in _rows(path):
        epochs = float(row["target_epoch"])
        key = (_workload(row), int(row["batch_size"]), row["optimizer"], float(row["target_metric"]))
        found[key].append(math.inf if math.isnan(epochs) else epochs)
    return dict(found)


def read_distribution(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Acme's draw of all GPUs of two clusters: (per cent of the readings, watts that they do not exceed)."""
    rows = list(_rows(path))
    return {name: [(float(r[f"{name}_cdf"]), float(r[f"{name}_w"])) for r in rows] for name in ("seren", "kalos")}


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from csv.DictReader(line for line in lines if not line.startswith("#"))


def _workload(row: Mapping[str, str]) -> str:
    return f"{row['dataset']}/{row['network']}"


@dataclass(frozen=True)
class Saving:
    """What the cap of least energy brings in one configuration, against the highest cap.

    Attributes:
        best_w: that cap.
        top_w: the highest cap.
        less: the share of energy that it saves.
        slower: by which share an epoch takes longer.
        less_within: the share saved if an epoch may take at most `within` longer.
    """

    best_w: float
    top_w: float
    less: float
    slower: float
    less_within: float


def saving(rows: Iterable[Setting], within: float = 0.05) -> Saving:
    """The saving of one configuration, from its rows under all caps."""
    rows = list(rows)
    top = max(rows, key=lambda row: row.limit_w)
    best = min(rows, key=lambda row: row.step_j)
    quick = min((row for row in rows if row.step_s <= (1 + within) * top.step_s), key=lambda row: row.step_j)
    less, less_within = (1 - row.step_j / top.step_j for row in (best, quick))
    return Saving(best.limit_w, top.limit_w, less, best.step_s / top.step_s - 1, less_within)


def summary(table: Mapping[Key, Iterable[Setting]]) -> dict[str, float]:
    """Over all configurations of a GPU: how often the highest cap is best, and medians of what the best one brings."""
    found = [saving(rows) for rows in table.values()]
    return {
        "configurations": len(found),
        "top is best": mean(each.best_w == each.top_w for each in found),
        "less, median": median(each.less for each in found),
        "less, most": max(each.less for each in found),
        "slower, median": median(each.slower for each in found),
        "less within 5 %": median(each.less_within for each in found),
    }


@dataclass(frozen=True)
class Reached:
    """One batch of a workload under one cap: what it takes to the target.

    Attributes:
        workload: data set and network.
        target: of its metric.
        batch: samples a step.
        limit_w: the cap.
        epochs: until the target, the mean of the runs.
        seconds: until the target.
        joules: until the target.
    """

    workload: str
    target: float
    batch: int
    limit_w: float
    epochs: float
    seconds: float
    joules: float


def reached(
    table: Mapping[Key, Iterable[Setting]],
    epochs: Mapping[tuple[str, int, str, float], list[float]],
    workload: str,
    target: float,
    *,
    every_run: bool = True,
) -> list[Reached]:
    """Time and energy to a target, of every batch and cap.

    Args:
        table: what an epoch takes.
        epochs: how many epochs the runs needed.
        workload: which one.
        target: of its metric.
        every_run: whether a batch counts only if all its runs reached the target. If not, the runs that did are
            averaged, and those that failed cost nothing: that flatters a batch.
    """
    found = []
    for (name, batch, optimizer, goal), needed in epochs.items():
        arrived = [each for each in needed if math.isfinite(each)]
        if (name, goal) != (workload, target) or not arrived or (every_run and len(arrived) < len(needed)):
            continue
        for row in table.get((name, batch, optimizer), ()):
            n = mean(arrived)
            found.append(Reached(name, goal, batch, row.limit_w, n, n * row.step_s, n * row.step_j))
    return sorted(found, key=lambda each: (each.batch, each.limit_w))


def _shipped(name: str) -> Iterator[dict[str, str]]:
    text = files("parallel_lab.systems.energy").joinpath(name).read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


def shipped_caps(gpu: str) -> list[dict[str, float]]:
    """Of a GPU, `v100` or `a40`, for each cap the quartiles over configurations of time and energy; full power is 1."""
    rows = [row for row in _shipped("caps.csv") if row.pop("gpu") == gpu]
    return [{name: float(value) for name, value in row.items()} for row in rows]


def shipped_savings() -> dict[str, dict[str, float]]:
    """What `summary` gave for the original tables, by GPU."""
    return {row.pop("gpu"): {name: float(value) for name, value in row.items()} for row in _shipped("savings.csv")}


def shipped_reached(workload: str, target: float) -> list[Reached]:
    """What `reached` gave for the V100, for each batch under all caps."""
    rows = [row for row in _shipped("reached.csv") if row["workload"] == workload and float(row["target"]) == target]
    kept = ("target", "limit_w", "epochs", "seconds", "joules")
    return [Reached(workload, batch=int(row["batch"]), **{name: float(row[name]) for name in kept}) for row in rows]


def shipped_draw(cluster: str) -> list[tuple[float, float]]:
    """(per cent, watts) of all A100s of Acme's `seren` or `kalos`, 22 points of the distribution."""
    return [(float(row["per_cent"]), float(row[f"{cluster}_w"])) for row in _shipped("draw.csv")]
