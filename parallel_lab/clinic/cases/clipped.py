"""Case 15: gradients that each rank clips before their average."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from parallel_lab.clinic.cases.dealt import Batch, batches_of, together
from parallel_lab.clinic.cases.ground import LR, model_of
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report
from parallel_lab.clinic.job import CLIPPED, Case, States, alike, one_process

STEPS, BATCH, MOST, SPREAD = 8, 6, 0.5, 3.0


def job(model: nn.Module, batches: list[Batch], report: Report) -> nn.Module:
    """Trains with gradients of a norm of at most 0.5."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y in batches:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        optimizer.step()
        report(model, loss=loss.detach(), norm=norm)
    return model


def mended(model: nn.Module, batches: list[Batch], report: Report) -> nn.Module:
    """Clips the average."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y in batches:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        report(model, loss=loss.detach(), norm=norm)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, and the batches of this rank: few points far apart, whose gradients are large and disagree."""
    return model_of(seed), batches_of(rank, seed, STEPS, BATCH, SPREAD)


def _alone(ranks: int, seed: int) -> tuple[nn.Module, list[float]]:
    """One process on the batches of all ranks, and the norms that it sees."""
    model, norms = model_of(seed), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for x, y in together(ranks, seed, STEPS, BATCH, SPREAD):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        norms.append(float(clip_grad_norm_(model.parameters(), MOST)))
        optimizer.step()
    return model, norms


def oracle(ranks: int, seed: int) -> States:
    """One process on the batches of all ranks."""
    return [_alone(ranks, seed)[0].state_dict()] * ranks


def notes(ranks: int, seed: int) -> str:
    """The norms of one process on the same batches."""
    norms = _alone(ranks, seed)[1]
    return "One process, all samples of each step in one batch: norm " + ", ".join(f"{each:.4g}" for each in norms)


def sign(chart: Chart) -> bool:
    """The ranks agree on the weights, and report different norms."""
    if not chart.results:
        return False
    by_rank = [chart.column(rank, "norm") for rank in range(chart.ranks)]
    return any(len({round(norm, 9) for norm in step}) > 1 for step in zip(*by_rank, strict=True))


CASE = Case(
    number=15,
    title="On more ranks it learns more slowly",
    complaint=(
        "We clip at a norm of 0.5, as on one GPU. On four the loss falls more slowly at the same batch, and the more "
        "ranks, the slower. The ranks agree on every weight. Somebody wants to raise the learning rate."
    ),
    cause="clipped per rank",
    evidence="the norms differ from rank to rank, and all are larger than that of one process: norms of shares.",
    job=job,
    mended=mended,
    given=given,
    demands=(alike(), one_process("Whose gradient has the norm that is reported?", close=CLIPPED)),
    sign=sign,
    oracle=oracle,
    notes=notes,
    also=(2, 3),
)
