"""Strategies against each other in virtual time: the quality at equal samples, and at equal simulated seconds.

A strategy that never waits makes more updates in the same time, from staler gradients. Which of the two weighs more is
a matter of measurement, over several seeds, with a learning rate chosen for each strategy: one rate for all would
favor whichever it happens to suit: an asynchronous update holds one gradient, a synchronous one the mean of n.

    task = compare.digits(batch=16, rates={"synchronous": 0.8, "asynchronous": 0.2})
    found = compare.curves(task, compare.strategies(4), seeds=range(5), slow=3.0)
    statistics.fmean(curve.losses[-1] for curve in found["synchronous"])

Seeds are independent, so ranks may share them: each calls `curves` with its own, and `merge` joins what they found.
"""

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any

import torch
from torch import nn

from parallel_lab.model.data import Batch, text, text_batches
from parallel_lab.model.digits import digit_images
from parallel_lab.model.gpt import GPTConfig
from parallel_lab.model.reference import build
from parallel_lab.synchronization import Asynchronous, LocalSteps, Mixed, OuterSteps, Partial, Stale, Synchronous
from parallel_lab.synchronization.train import Source
from parallel_lab.synchronization.virtual import Curve, Strategy, replay, schedule, slow_worker

Curves = dict[str, list[Curve]]


@dataclass(frozen=True)
class Task:
    """What is trained."""

    model: Callable[[int], nn.Module]  # made from a seed
    batches: Callable[[int], Source]  # made from a seed, as the strategies take them, enough for any worker
    held_out: Batch  # on which quality is measured
    optimizer_class: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    options: Mapping[str, Any] = field(default_factory=dict)  # the optimizer's
    rates: Mapping[str, float] = field(default_factory=dict)  # of single strategies, instead of `options`; see `tuned`


def digits(batch: int, optimizer_class: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, **numbers: Any) -> Task:
    """Handwritten digits, `batch` for a gradient, and a net of 2,410 weights; each worker draws in its own order."""
    images, labels = digit_images("train")

    def batches(seed: int) -> Source:
        def drawn(worker: int, workers: int) -> Iterator[Batch]:
            dice = torch.Generator().manual_seed(workers * seed + worker)
            while True:
                picked = torch.randint(len(labels), (batch,), generator=dice)
                yield images[picked], labels[picked]

        return drawn

    return Task(lambda seed: rounded((64, 32, 10), seed), batches, digit_images("test"), optimizer_class, **numbers)


def language(
    batch: int,
    config: GPTConfig,
    optimizer_class: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    **numbers: Any,
) -> Task:
    """English text byte by byte, `batch` sequences for a gradient, and a GPT; each worker draws in its own order."""

    def batches(seed: int) -> Source:
        many = 1 << 20  # more than any schedule asks for
        return lambda worker, workers: text_batches(config.seq, batch, many, seed=workers * seed + worker)

    (validation,) = text_batches(config.seq, 32, 1, data=text("validation"))
    return Task(lambda seed: rounded(config, seed), batches, validation, optimizer_class, **numbers)


def rounded(shape: GPTConfig | tuple[int, ...], seed: int) -> nn.Module:
    """A model in float64 whose weights begin with few digits: every machine begins with the same bits."""
    return build(shape, seed, torch.bfloat16).double()


def strategies(workers: int) -> dict[str, Strategy]:
    """One of each kind for so many workers, by the name of its file."""
    return {
        "synchronous": Synchronous(),
        "asynchronous": Asynchronous(),
        "stale": Stale(2),
        "partial": Partial(max(1, workers - 1)),  # all but one
        "mixed": Mixed(20 * workers),
        "local_sgd": LocalSteps(8),
        "diloco": OuterSteps(8),
    }


def curves(
    task: Task,
    chosen: Mapping[str, Strategy],
    seeds: Iterable[int],
    *,
    workers: int = 4,
    updates: int = 240,
    slow: float = 1.0,
    points: int = 12,
) -> Curves:
    """Trains under each strategy from each seed until `updates` gradients were used.

    A step takes a second, of the last worker `slow` times as long.
    """
    step_s = slow_worker(workers, slow)
    plans = {name: schedule(one, step_s, workers, updates, count_dropped=False) for name, one in chosen.items()}
    found: Curves = {name: [] for name in chosen}
    for seed in seeds:
        for name, plan in plans.items():
            options = {"held_out": task.held_out, "points": points, **task.options}
            options |= {"lr": task.rates[name]} if name in task.rates else {}
            found[name].append(replay(plan, task.model(seed), task.batches(seed), task.optimizer_class, **options))
    return found


@cache
def tried(task: str, column: str = "loss") -> dict[str, dict[float, list[float]]]:
    """For each strategy and learning rate the losses of ten seeds, as `tools/learning_rates.py` found them.

    Args:
        task: A task of that script.
        column: `loss`, at the end, or `loss_72s`, after 72 simulated seconds.
    """
    table = files("parallel_lab.synchronization").joinpath("rates.csv").read_text(encoding="utf-8")
    found: dict[str, dict[float, list[float]]] = {}
    for row in csv.DictReader(table.splitlines()):
        if row["task"] == task:
            found.setdefault(row["strategy"], {}).setdefault(float(row["rate"]), []).append(float(row[column]))
    return {name: dict(sorted(some.items())) for name, some in found.items()}


def best(task: str, column: str = "loss") -> dict[str, float]:
    """For each strategy the rate with the lowest mean of `tried`, for `Task.rates`."""
    return {name: _lowest(some) for name, some in tried(task, column).items()}


def _lowest(losses: Mapping[float, Sequence[float]]) -> float:
    means = {rate: statistics.fmean(some) for rate, some in losses.items()}
    return min(means, key=lambda rate: means[rate] if math.isfinite(means[rate]) else math.inf)  # NaN: it blew up


def tuned(
    task: Task, chosen: Mapping[str, Strategy], rates: Sequence[float], seeds: Iterable[int] = (100,), **settings
) -> dict[str, float]:
    """For each strategy the rate with the lowest mean loss at the end, for `Task.rates`; from seeds of its own."""
    seeds = list(seeds)
    ends: dict[str, dict[float, list[float]]] = {name: {} for name in chosen}
    for rate in rates:
        trial = replace(task, options={**task.options, "lr": rate}, rates={})
        for name, found in curves(trial, chosen, seeds, **settings).items():
            ends[name][rate] = [curve.losses[-1] for curve in found]
    return {name: _lowest(losses) for name, losses in ends.items()}


def merge(parts: Iterable[Curves]) -> Curves:
    """The curves of several ranks as one, in the order of the ranks."""
    parts = list(parts)
    return {name: list(chain.from_iterable(part[name] for part in parts)) for name in parts[0]}
