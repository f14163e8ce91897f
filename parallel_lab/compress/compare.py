"""One table of all ways to compress a model: quality, bytes stored, bytes sent, and time.

    from parallel_lab.compress import compare

    methods = {"dense": compare.dense, "int8": lambda model, data: round_to_nearest(model, 8)}
    print(compare.table(compare.digits(), methods, seeds=range(5)))

A method is a function of a copy of the trained model and of `Data`, which has training data alone: no method can
calibrate on what measures it. It returns the model as it is stored and used afterwards; and if another one is trained
for it (weights in float32 behind the codes, adapters before they are merged), a pair of both. Codes have no gradient:
of a model in codes that comes alone, the dense one is what was trained.

    quality    of the model as it is used, on held-out data: accuracy, or perplexity, which is exp(mean loss)
    change     of the quality against the dense model of the same seed: the seed's own luck is in both
    stored     its parameters and buffers, or, if less, those that are not 0 and a bit for each number
    sent       what one rank sends in a step of training it data-parallel, counted at the door
    time       of a forward pass over that of the dense model, the two run alternately; it is this machine's
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parallel_lab.compress import formulas
from parallel_lab.compress.quantized_linear import QuantizedLinear
from parallel_lab.compress.sent import Wrap, sent_bytes
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.data import Batch, Batches, text, text_batches
from parallel_lab.model.digits import digit_batches, digit_images
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import build, to_model, train
from parallel_lab.runtime.kernel.output import Bar
from parallel_lab.trace.units import format_bytes

SMALL = GPTConfig(seq=32, width=32, layers=2, tied=False)  # untied: a tied output layer is never quantized
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
    change: float  # against the dense model
    stored_bytes: int
    sent_bytes: int
    time: float  # over that of the dense model


@dataclass
class Table:
    """All rows; printed, means over the seeds, and the standard deviation of a seed."""

    quality: str
    rows: list[Row] = field(default_factory=list)

    def column(self, method: str, name: str) -> list[float]:
        """One number a seed."""
        return [getattr(row, name) for row in self.rows if row.method == method]

    def __str__(self) -> str:
        methods = list(dict.fromkeys(row.method for row in self.rows))
        wide = max(map(len, methods))
        head = f"{self.quality:>15}  {'change':>15}  {'stored':>8}  {'sent a step':>11}  {'time / dense':>15}"
        lines = [f"{'':<{wide}}  {head}"]
        for method in methods:
            quality, change, time = (spread(self.column(method, name)) for name in ("quality", "change", "time"))
            stored, sent = (statistics.fmean(self.column(method, name)) for name in ("stored_bytes", "sent_bytes"))
            size = f"{format_bytes(stored):>8}  {format_bytes(sent):>11}"
            lines.append(f"{method:<{wide}}  {quality:>15}  {change:>15}  {size}  {time:>15}")
        return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """`0.967 ± 0.004`: the mean and the sample's standard deviation."""
    apart = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{apart}"


def dense(model: nn.Module, data: Data) -> nn.Module:
    """The method that changes nothing."""
    return model


def longer(steps: int, **options: Any) -> Method:
    """The method that only trains on, which whatever is trained for as many steps has to be compared with."""
    return lambda model, data: data.tuned(model, steps, **options)


def table(
    task: Task,
    methods: Mapping[str, Method],
    seeds: Iterable[int] = range(3),
    *,
    ranks: int = 2,
    wrap: Wrap | None = None,
) -> Table:
    """Compresses the trained model of each seed by each method, and measures what comes of it, under a progress bar.

    Args:
        task: `digits()`, `language()` or one of your own.
        methods: by name.
        seeds: of the trained models and of the batches.
        ranks: that train data-parallel where bytes are counted.
        wrap: makes a model data-parallel on a rank, as `DDP` does; by default one message averages all gradients.
    """
    seeds, bar, found = list(seeds), Bar(), Table(task.quality)
    for number, seed in enumerate(seeds):
        whole, models = task.model(seed), {}
        best = task.measure(whole)
        for place, (name, method) in enumerate(methods.items()):
            bar(0, f"seed {seed}, {name}", number * len(methods) + place, len(seeds) * len(methods))
            models[name] = _pair(method(deepcopy(whole), task.data(seed)), whole)
        sent = sent_bytes([trained for _, trained in models.values()], task.batch, ranks=ranks, wrap=wrap)
        for (name, (used, _)), one in zip(models.items(), sent, strict=True):
            quality, ratio = task.measure(used), time_ratio(used, whole, task.batch)
            found.rows.append(Row(name, seed, quality, quality - best, stored_bytes(used), one, ratio))
    bar(0, "all seeds", len(seeds) * len(methods), len(seeds) * len(methods))
    bar.close()
    return found


def _pair(made: Model, whole: nn.Module) -> tuple[nn.Module, nn.Module]:
    """What is used, and what is trained for it."""
    if isinstance(made, tuple):
        return made
    in_codes = any(isinstance(module, QuantizedLinear) for module in made.modules())
    return made, whole if in_codes else made


def stored_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, tied ones once; of floating-point ones the less of dense and `sparse_bytes`."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values()
    return sum(_least_bytes(tensor.detach()) for tensor in tensors)


def _least_bytes(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return tensor.nbytes
    return min(tensor.nbytes, formulas.sparse_bytes(tensor.numel(), int(tensor.count_nonzero()), tensor.itemsize))


@torch.no_grad()
def time_ratio(model: nn.Module, other: nn.Module, batch: Batch) -> float:
    """The median time of a forward pass over that of `other`; they run alternately, after one run each."""
    taken: dict[nn.Module, list[float]] = {model: [], other: []}
    for _ in range(RUNS + 1):
        for one, times in taken.items():
            inputs, _ = to_model(one, batch)
            wait(inputs.device)
            began_s = time.perf_counter()
            one(inputs)
            wait(inputs.device)
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


def language(
    config: GPTConfig = SMALL, *, batch: int = 16, steps: int = 150, lr: float = 0.01, held_out: int = 64
) -> Task:
    """English text byte by byte, a GPT trained with Adam, and the perplexity on sequences from the end of the text."""
    first = next(iter(text_batches(config.seq, batch, 1)))

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

    return Task("perplexity", model, lambda seed: data(1000 + seed), perplexity, first)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
