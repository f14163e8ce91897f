"""Case 6: gradients that leave before the last of them has come."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportOptionalMemberAccess=false, reportPossiblyUnboundVariable=false

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.clinic.cases.ground import model_of, points, samples_of, trained
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, States, alike, one_process, sends
from parallel_lab.trace import span

COUNT, BATCH, STEPS = 288, 48, 6


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Data parallel with three microbatches per step; the exchange runs beside the last backward."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(48):
        optimizer.zero_grad()
        for mb, piece in enumerate(batch[rank::n].chunk(3)):
            x, y = samples[piece]
            loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 48
            if mb == 2:
                flat = torch.cat([p.grad.flatten() for p in params])
                exchange = dist.all_reduce(flat, async_op=True)
            with span("backward", mb=mb):
                loss.backward()
        exchange.wait()
        for p, grad in zip(params, flat.split([p.numel() for p in params]), strict=True):
            p.grad = grad.view_as(p)
        optimizer.step()
        report(model, norm=flat.norm())
    return model


def mended(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Exchanges the gradients when the last backward has added to them."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(48):
        optimizer.zero_grad()
        for mb, piece in enumerate(batch[rank::n].chunk(3)):
            x, y = samples[piece]
            loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 48
            with span("backward", mb=mb):
                loss.backward()
        flat = torch.cat([p.grad.flatten() for p in params])
        dist.all_reduce(flat)
        for p, grad in zip(params, flat.split([p.numel() for p in params]), strict=True):
            p.grad = grad.view_as(p)
        optimizer.step()
        report(model, norm=flat.norm())
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model and the samples."""
    return model_of(seed), samples_of(COUNT, seed)


def oracle(ranks: int, seed: int) -> States:
    """One process on the same batches."""
    return [trained(seed, points(COUNT, seed), torch.arange(COUNT).split(BATCH)).weights] * ranks


def norms_of(ranks: int, seed: int) -> Sequence[float]:
    """The norm of the gradient of the first step in one process."""
    gradients = trained(seed, points(COUNT, seed), [torch.arange(BATCH)]).gradients
    return [torch.cat([each.flatten() for each in gradients.values()]).norm().item()]


def notes(ranks: int, seed: int) -> str:
    """The norm of one process."""
    return f"One process, the first batch: norm {norms_of(ranks, seed)[0]:.4g}"


def sign(chart: Chart) -> bool:
    """In each step an all-reduce is issued before the last backward, and the norm is too small."""
    order = [s.kind for s in chart.trace.of(0) if s.kind in ("B", "all_reduce")]
    early = order[:4] == ["B", "B", "all_reduce", "B"]
    return early and chart.column(0, "norm")[0] < 0.95 * norms_of(chart.ranks, chart.seed)[0]


CASE = Case(
    number=6,
    title="Overlap made it quicker, and a little worse",
    complaint=(
        "Since we hide the exchange behind the backward pass, the curve lies above the old one. The ranks agree on "
        "every weight, nothing is NaN. With more microbatches per step the two curves come closer, so I doubt that it "
        "is the overlap."
    ),
    cause="stale bucket",
    evidence=(
        "the timeline: the all-reduce is issued before the last backward of the step, on a copy of what was there by "
        "then. The norm is nearly a third below that of one process: one of three microbatches is missing, and what it "
        "adds to p.grad is overwritten."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(
        sends(
            lambda ranks: STEPS * 8 * sum(p.numel() for p in model_of(0).parameters()) * 2 * (ranks - 1) / ranks + 1000,
            "One exchange per step is enough, however many microbatches there are.",
        ),
        alike(),
        one_process("Which samples of the batch have a share in the gradient that the optimizer sees?"),
    ),
    sign=sign,
    oracle=oracle,
    notes=notes,
    also=(2,),
)
