"""Case 8: collectives in another order on each rank."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportOptionalMemberAccess=false

from functools import cache

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.clinic.cases.ground import FEATURES, LR, points, samples_of
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, States, alike, one_process, sends
from parallel_lab.model.reference import train

COUNT, BATCH, STEPS, LAYERS = 144, 24, 6, 4


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Data parallel; large gradients leave first, since the optimizer can begin with them."""
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
    """Goes through the parameters in an order that is the same on all ranks."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
        optimizer.zero_grad()
        loss.backward()
        for p in reversed(params):
            dist.all_reduce(p.grad)
        optimizer.step()
        report(model, loss=loss)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model and the samples."""
    return _model(seed), samples_of(COUNT, seed)


def _model(seed: int) -> nn.Module:
    """Layers of one shape, as the blocks of a transformer are."""
    draw, layers = torch.Generator().manual_seed(seed), []
    for _ in range(LAYERS):
        layer = nn.Linear(FEATURES, FEATURES, bias=False, dtype=torch.float64)
        weight = torch.randn(FEATURES, FEATURES, generator=draw, dtype=torch.float64) / FEATURES**0.5
        layer.weight = nn.Parameter(weight)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@cache
def oracle(ranks: int, seed: int) -> States:
    """One process on the same batches."""
    inputs, targets = points(COUNT, seed)
    batches = [(inputs[batch], targets[batch]) for batch in torch.arange(COUNT).split(BATCH)]
    return [train(_model(seed), batches, torch.optim.SGD, lr=LR).weights] * ranks


def sign(chart: Chart) -> bool:
    """All ranks sent the same bytes in the same calls, and have different weights, each from all others or nearly."""
    sent = {chart.trace.bytes_sent(rank) for rank in range(chart.ranks)}
    return len(sent) == 1 and len({chart.column(rank, "weights")[-1] for rank in range(chart.ranks)}) > 1


CASE = Case(
    number=8,
    title="Averaged every step, and never the same",
    complaint=(
        "Every gradient goes through an all-reduce in every step: same number of calls, same bytes on all ranks, no "
        "error, no hang. Yet the ranks have different weights after a step or two. With another model the same loop "
        "ends at once with a complaint about sizes."
    ),
    cause="collectives in different orders",
    evidence=(
        "the weights come apart at the first step in which the ranks rank their gradients differently. An all-reduce "
        "knows no names: the i-th call of one rank meets the i-th of the others, and adds up whatever has that size. "
        "Here all layers have one shape; with other shapes it is an error or a hang."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(
        alike("What does each rank hand in as its first all-reduce of a step?"),
        one_process("Weights that are made equal are not yet right: which gradients were added up?"),
        sends(
            lambda ranks: STEPS * 8 * LAYERS * FEATURES**2 * 2 * (ranks - 1) / ranks + 1000, "Once per step is enough."
        ),
    ),
    sign=sign,
    oracle=oracle,
)
