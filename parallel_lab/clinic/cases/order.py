"""Case 8: collectives in another order on each rank."""

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.clinic.cases.ground import model_of, points, samples_of, trained
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, States, alike, one_process, sends

COUNT, BATCH, STEPS = 144, 24, 6


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Data parallel; large gradients leave first, since they take longest."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
        optimizer.zero_grad()
        loss.backward()
        for p in sorted(params, key=lambda p: p.grad.norm(), reverse=True):
            dist.all_reduce(p.grad)
        optimizer.step()
        report(model, loss=loss)
    return model


def mended(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Sorts by what is the same on all ranks: the number of elements, and the place where that is equal."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
        optimizer.zero_grad()
        loss.backward()
        for p in sorted(params, key=lambda p: p.numel(), reverse=True):
            dist.all_reduce(p.grad)
        optimizer.step()
        report(model, loss=loss)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model and the samples."""
    return model_of(seed), samples_of(COUNT, seed)


def oracle(ranks: int, seed: int) -> States:
    """One process on the same batches."""
    return [trained(seed, points(COUNT, seed), torch.arange(COUNT).split(BATCH)).weights] * ranks


CASE = Case(
    number=8,
    title="Ends with an error about sizes, at another step each time",
    complaint="",
    cause="collectives in different orders",
    evidence="",
    job=job,
    mended=mended,
    given=given,
    demands=(alike(), one_process()),
    sign=lambda chart: bool(chart.error),
    oracle=oracle,
    also=(2,),
)
