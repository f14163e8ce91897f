"""One table of all ways to compress a model: its quality, the bytes it stores and those it sends, and the time it takes.

    task = digits()
    print(compare(task, {"dense": dense, "int8": lambda model, data: round_to_nearest(model, 8)}, seeds=range(5)))

A method is a function of a trained model, which it leaves as it is, and of `Data`, which has training data alone: no
method can calibrate on what measures it. It returns the model as it is stored and used afterwards; and if another one
is trained for it (weights in float32 behind the codes, adapters before they are merged), a pair of both.

    quality    of the model as it is used, on held-out data: accuracy, or perplexity, which is exp(mean loss)
    stored     its parameters and buffers, or, if less, those that are not 0 and a bit for each number
    sent       what one rank sends in a step of training it data-parallel, counted at the door
    time       of a forward pass over that of the dense model of the same seed, which runs alternately; it is this machine's
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.collectives.flat import end_to_end, put_back
from parallel_lab.compress import formulas
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.data import Batch, Batches, text, text_batches
from parallel_lab.model.digits import digit_batches, digit_images
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import build, to_model, train
from parallel_lab.runtime import launch
from parallel_lab.runtime.kernel.output import Bar
from parallel_lab.trace import span
from parallel_lab.trace.units import format_bytes

RUNS = 9  # forward passes, of which the median counts


@dataclass(frozen=True)
class Data:
    """What a method may look at: batches of the training data, in an order of its own."""

    batches: Callable[[int], Batches]  # so many of them
    optimizer_class: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Any]  # the optimizer's, for fine-tuning

    def tuned(self, model: nn.Module, steps: int, **options: Any) -> nn.Module:
        """`model`, trained on in place for so many steps; `options` of the optimizer instead of the task's."""
        trained = train(model, self.batches(steps), self.optimizer_class, **{**self.options, **options})
        model.load_state_dict(trained.weights)
        return model


Model = nn.Module | tuple[nn.Module, nn.Module]
Method = Callable[[nn.Module, Data], Model]


@dataclass(frozen=True)
class Task:
    """What is compressed, and what tells how good it still is."""

    quality: str  # "accuracy" or "perplexity"
    model: Callable[[int], nn.Module]  # the trained one of a seed
    data: Callable[[int], Data]
    measure: Callable[[nn.Module], float]
    batch: Batch  # of the training data: what a step and a forward pass are counted and timed with


class Row(NamedTuple):
    """One method from one seed."""

    method: str
    seed: int
    quality: float
    stored_bytes: int
    sent_bytes: int
    time: float  # over that of the dense model


@dataclass
class Table:
    """All rows; printed, the mean over the seeds and the standard deviation."""

    quality: str
    rows: list[Row] = field(default_factory=list)

    def column(self, method: str, name: str) -> list[float]:
        """One number a seed."""
        return [getattr(row, name) for row in self.rows if row.method == method]

    def __str__(self) -> str:
        methods = list(dict.fromkeys(row.method for row in self.rows))
        wide = max(map(len, methods))
        lines = [f"{'':<{wide}}  {self.quality:>15}  {'stored':>8}  {'sent a step':>11}  {'time / dense':>13}"]
        for method in methods:
            quality, time = (spread(self.column(method, name)) for name in ("quality", "time"))
            stored, sent = (statistics.fmean(self.column(method, name)) for name in ("stored_bytes", "sent_bytes"))
            size = f"{format_bytes(stored):>8}  {format_bytes(sent):>11}"
            lines.append(f"{method:<{wide}}  {quality:>15}  {size}  {time:>13}")
        return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """`0.967 ± 0.004`: the mean and the sample's standard deviation."""
    apart = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{apart}"


def dense(model: nn.Module, data: Data) -> nn.Module:
    """The method that changes nothing."""
    return model


def compare(
    task: Task,
    methods: Mapping[str, Method],
    seeds: Iterable[int] = range(3),
    *,
    ranks: int = 2,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
) -> Table:
    """Compresses the trained model of each seed by each method, and measures what comes of it, under a progress bar.

    Args:
        task: `digits()`, `language()` or one of your own.
        methods: by name.
        seeds: of the trained models and of the batches.
        ranks: that train data-parallel where bytes are counted.
        wrap: what makes a model data-parallel on a rank, as `DDP` does; by default gradients are averaged in one message.
    """
    seeds, bar, table = list(seeds), Bar(), Table(task.quality)
    for number, seed in enumerate(seeds):
        whole, models = task.model(seed), {}
        for place, (name, method) in enumerate(methods.items()):
            bar(0, f"seed {seed}, {name}", number * len(methods) + place, len(seeds) * len(methods))
            models[name] = _pair(method(whole, task.data(seed)))
        sent = sent_bytes([trained for _, trained in models.values()], task.batch, ranks=ranks, wrap=wrap)
        for (name, (used, _)), one in zip(models.items(), sent, strict=True):
            ratio = time_ratio(used, whole, task.batch)
            table.rows.append(Row(name, seed, task.measure(used), stored_bytes(used), one, ratio))
    bar(0, "all seeds", len(seeds) * len(methods), len(seeds) * len(methods))
    bar.close()
    return table


def _pair(made: Model) -> tuple[nn.Module, nn.Module]:
    return made if isinstance(made, tuple) else (made, made)


def stored_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, tied ones once; of each the less of dense and sparse, see `sparse_bytes`."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values()
    return sum(min(t.nbytes, formulas.sparse_bytes(t.numel(), int(t.count_nonzero()), t.itemsize)) for t in tensors)


def sent_bytes(
    models: Sequence[nn.Module],
    batch: Batch,
    *,
    ranks: int = 2,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
) -> list[int]:
    """What rank 0 sends in one step of training each model data-parallel, counted at the door in one launch.

    A model of which nothing is trained sends nothing.
    """
    run = launch(_steps, models, batch, wrap, ranks=ranks, device="cpu", echo=False)
    spans = run.trace.of(0)
    steps = [s for s in spans if s.kind == "compared"]
    return [sum(s.sent_bytes for s in spans if one.start_s <= s.start_s < one.end_s) for one in steps]


def _steps(models: Sequence[nn.Module], batch: Batch, wrap: Callable[[nn.Module], nn.Module] | None) -> None:
    for model in models:
        with span("compared"):
            trained = [p for p in model.parameters() if p.requires_grad]
            if not trained:
                continue
            inputs, targets = to_model(model, batch)
            made = wrap(model) if wrap else model
            cross_entropy(made(inputs), targets).backward()
            if not wrap:
                gradients = [p.grad for p in trained if p.grad is not None]
                flat = end_to_end(gradients) / dist.get_world_size()
                dist.all_reduce(flat)
                put_back(flat, gradients)


@torch.no_grad()
def time_ratio(model: nn.Module, other: nn.Module, batch: Batch) -> float:
    """The median time of a forward pass over that of `other`; they run alternately, after one run each."""
    taken: dict[nn.Module, list[float]] = {model: [], other: []}
    for _ in range(RUNS + 1):
        for one, times in taken.items():
            inputs, _ = to_model(one, batch)
            began_s = time.perf_counter()
            one(inputs)
            times.append(time.perf_counter() - began_s)
    return statistics.median(taken[model][1:]) / statistics.median(taken[other][1:])


def digits(widths: Sequence[int] = (64, 128, 10), *, batch: int = 128, steps: int = 150, lr: float = 0.005) -> Task:
    """Handwritten digits, an MLP trained with Adam, and the accuracy on the 359 images that nobody trains on."""

    def data(seed: int) -> Data:
        return Data(lambda count: digit_batches(batch, count, seed=seed), torch.optim.Adam, {"lr": lr})

    @cache
    def model(seed: int) -> nn.Module:
        return data(seed).tuned(build(widths, seed), steps)

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        images, labels = to_model(model, digit_images("test"))
        return (model(images).argmax(1) == labels).double().mean().item()

    return Task("accuracy", model, lambda seed: data(1000 + seed), accuracy, next(iter(digit_batches(batch, 1))))


def language(config: GPTConfig, *, batch: int = 16, steps: int = 100, lr: float = 0.003, held_out: int = 64) -> Task:
    """English text byte by byte, a GPT trained with Adam, and the perplexity on sequences of text after the training's."""

    def data(seed: int) -> Data:
        return Data(lambda count: text_batches(config.seq, batch, count, seed=seed), torch.optim.Adam, {"lr": lr})

    @cache
    def model(seed: int) -> nn.Module:
        return data(seed).tuned(build(config, seed), steps)

    @torch.no_grad()
    def perplexity(model: nn.Module) -> float:
        (validation,) = text_batches(config.seq, held_out, 1, data=text("validation"))
        tokens, targets = to_model(model, validation)
        return cross_entropy(model(tokens), targets).exp().item()

    return Task(
        "perplexity", model, lambda seed: data(1000 + seed), perplexity, next(iter(text_batches(config.seq, batch, 1)))
    )
