"""Case 7: a cache that never hits."""

from collections import UserDict
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.clinic.cases.ground import CLASSES, FEATURES, HIDDEN, LR, points, samples_of
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Instrument, Report, Samples
from parallel_lab.clinic.job import Case, States, alike, one_process
from parallel_lab.model.reference import build, train
from parallel_lab.trace import recorder
from parallel_lab.trace.units import format_bytes

COUNT, BATCH, EPOCHS = 48, 12, 4


class Encoder(Instrument):
    """A frozen model, expensive to call: `encoder(inputs)`. It notes how many samples it was called with."""

    name = "encoded"

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layer = build((FEATURES, HIDDEN), seed + 1, torch.float64)

    def __call__(self, inputs: Tensor) -> Tensor:
        """The features of `inputs` (samples, features)."""
        self.noted.append(len(inputs))
        with torch.no_grad():
            return self.layer(inputs).tanh()


class Cache(Instrument, UserDict):
    """A dictionary of tensors that notes how many bytes it holds."""

    name = "cached"

    def __init__(self) -> None:
        Instrument.__init__(self)
        UserDict.__init__(self)

    def __setitem__(self, key: object, item: Tensor) -> None:
        super().__setitem__(key, item)
        self.noted.append(self.bytes)
        recorder().sample(self.bytes, "cache")

    @property
    def bytes(self) -> int:
        """What it holds now; tensors that share memory count once."""
        storages = {each.data_ptr(): each.nbytes() for each in (tensor.untyped_storage() for tensor in self.values())}
        return sum(storages.values())


def job(model: nn.Module, encoder: Encoder, samples: Samples, cache: Cache, report: Report) -> nn.Module:
    """Trains a head on features of a frozen encoder, which are computed once and kept."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for step, batch in enumerate(torch.arange(len(samples)).repeat(4).split(12)):
        features, targets = [], []
        for i in batch[rank::n].tolist():
            x, y = samples[[i]]
            if (step, i) not in cache:
                cache[step, i] = encoder(x)
            features.append(cache[step, i])
            targets.append(y)
        loss = nn.functional.cross_entropy(model(torch.cat(features)), torch.cat(targets), reduction="sum") / 12
        optimizer.zero_grad()
        loss.backward()
        for p in params:
            dist.all_reduce(p.grad)
        optimizer.step()
        report(model, cache_entries=len(cache), cache_bytes=cache.bytes)
    return model


def mended(model: nn.Module, encoder: Encoder, samples: Samples, cache: Cache, report: Report) -> nn.Module:
    """Keeps the features by sample, so that the second pass finds them."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).repeat(4).split(12):
        features, targets = [], []
        for i in batch[rank::n].tolist():
            x, y = samples[[i]]
            if i not in cache:
                cache[i] = encoder(x)
            features.append(cache[i])
            targets.append(y)
        loss = nn.functional.cross_entropy(model(torch.cat(features)), torch.cat(targets), reduction="sum") / 12
        optimizer.zero_grad()
        loss.backward()
        for p in params:
            dist.all_reduce(p.grad)
        optimizer.step()
        report(model, cache_entries=len(cache), cache_bytes=cache.bytes)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The head, the encoder, the samples, and an empty cache."""
    return _head(seed), Encoder(seed), samples_of(COUNT, seed), Cache()


def _head(seed: int) -> nn.Module:
    return build((HIDDEN, CLASSES), seed, torch.float64)


def oracle(ranks: int, seed: int) -> States:
    """One process that encodes everything first."""
    inputs, targets = points(COUNT, seed)
    features, order = Encoder(seed)(inputs), torch.arange(COUNT).repeat(EPOCHS)
    batches = [(features[batch], targets[batch]) for batch in order.split(BATCH)]
    return [train(_head(seed), batches, torch.optim.SGD, lr=LR).weights] * ranks


def holds_what_it_needs(case: Case, chart: Chart) -> None:
    """The encoder sees each sample of a rank once, and the cache holds its features once."""
    for rank in range(chart.ranks):
        own = len({place for each in chart.noted(rank, "samples") for place in each})
        held, encoded = max(chart.noted(rank, "cached"), default=0), sum(chart.noted(rank, "encoded"))
        needed = own * HIDDEN * 8
        if held > needed:
            seen = f"rank {rank} keeps {format_bytes(held)}; its {own} samples have {format_bytes(needed)} of features"
            raise Unhealthy(seen, "How many entries are there after the first pass, and after the second?")
        if encoded > own:
            seen = f"rank {rank} has encoded {encoded} samples, and has only {own} different ones"
            raise Unhealthy(seen, "Memory is no longer the trouble, but what is the cache good for now?")


def sign(chart: Chart) -> bool:
    """The cache grows in every step, and has more entries than this rank has samples."""
    entries = chart.column(0, "cache_entries")
    own = len({place for each in chart.noted(0, "samples") for place in each})
    return all(one < other for one, other in pairwise(entries)) and entries[-1] > own


CASE = Case(
    number=7,
    title="Killed for memory, always in the third pass",
    complaint=(
        "The losses are right. Memory grows by the same amount in every step until the host kills a rank. With half of "
        "the batch it makes twice as many steps. We took shorter runs and go on from checkpoints; each begins small "
        "again."
    ),
    cause="leaking cache",
    evidence=(
        "the entries of the cache grow in the second pass as they did in the first, though no sample is new: it never "
        "hits. The step is part of the key, and no step comes twice."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(alike(), one_process("The features of a sample never change."), holds_what_it_needs),
    sign=sign,
    oracle=oracle,
    also=(3,),
)
