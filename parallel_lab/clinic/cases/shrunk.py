"""Case 20: a job that was restarted on fewer ranks than its configuration says."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from parallel_lab.clinic.cases.dealt import same_everywhere
from parallel_lab.clinic.cases.ground import LR, model_of, points, samples_of, trained
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, States, alike, one_process, reads

SAMPLES, BATCH, CONFIGURED = 144, 24, 4


def job(model: nn.Module, samples: Samples, config: dict[str, int], report: Report) -> nn.Module:
    """Goes through the samples once, `batch` of them per step over all ranks."""
    optimizer, world, batch = torch.optim.SGD(model.parameters(), lr=0.5), config["world"], config["batch"]
    for first in range(0, len(samples), batch):
        mine = torch.arange(first, first + batch)[dist.get_rank() :: world]
        x, y = samples[mine]
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world
        optimizer.step()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        report(model, loss=loss.detach(), norm=norm)
    return model


def mended(model: nn.Module, samples: Samples, config: dict[str, int], report: Report) -> nn.Module:
    """Asks the group how many ranks there are."""
    return job(model, samples, config | {"world": dist.get_world_size()}, report)


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, all samples, and the configuration that was written for four ranks."""
    return model_of(seed), samples_of(SAMPLES, seed), {"world": CONFIGURED, "batch": BATCH}


def oracle(ranks: int, seed: int) -> States:
    """One process on the same global batches."""
    return same_everywhere(trained(seed, points(SAMPLES, seed), torch.arange(SAMPLES).split(BATCH)), ranks)


def notes(ranks: int, seed: int) -> str:
    """What the same steps said on four ranks."""
    model, norms = model_of(seed), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for x, y in zip(*(each.split(BATCH) for each in points(SAMPLES, seed)), strict=True):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        norms.append(float(torch.stack([p.grad.norm() for p in model.parameters()]).norm()))
        optimizer.step()
    return "The same steps on four ranks: norm " + ", ".join(f"{norm:.4g}" for norm in norms)


def sign(chart: Chart) -> bool:
    """The ranks agree, and have read fewer samples than there are."""
    if not chart.results:
        return False
    read = {p for rank in range(chart.ranks) for each in chart.noted(rank, "samples") for p in each}
    return len(read) < SAMPLES


CASE = Case(
    number=20,
    title="Since the node was taken out, it learns more slowly",
    complaint=(
        "One of four ranks was lost, and the launcher restarted the job on three, as it should. It runs, and nothing "
        "is logged. But the gradient norm fell at the restart, and the loss lags behind the old run at the same number "
        "of epochs."
    ),
    cause="stale world size",
    evidence="a quarter of the samples is read by nobody, and the norm is about three quarters of what it was.",
    job=job,
    mended=mended,
    given=given,
    demands=(
        alike(),
        reads(lambda ranks, seed: list(range(SAMPLES)), "Which samples does nobody read?"),
        one_process("By what is the sum of the gradients divided?"),
    ),
    sign=sign,
    oracle=oracle,
    notes=notes,
    ranks=3,
    also=(2,),
)
