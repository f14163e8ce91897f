"""Case 17: ranks that all read the same samples."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from parallel_lab.clinic.cases.ground import model_of, points, samples_of, trained
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, Demand, alike, reads, same

SAMPLES, EPOCHS = 96, 2


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Trains for two epochs with 8 samples per rank and step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for epoch in range(2):
        dice = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(samples), generator=dice)
        for first in range(0, len(order) - 7, 8):
            x, y = samples[order[first : first + 8]]
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
            optimizer.step()
            report(model, loss=loss.detach())
    return model


def mended(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Each rank takes every n-th sample of the common order."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for epoch in range(2):
        dice = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(samples), generator=dice)[dist.get_rank() :: dist.get_world_size()]
        for first in range(0, len(order) - 7, 8):
            x, y = samples[order[first : first + 8]]
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
            optimizer.step()
            report(model, loss=loss.detach())
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, and all samples."""
    return model_of(seed), samples_of(SAMPLES, seed)


def trains_on_what_it_reads(advice: str) -> Demand:
    """The model is what one process comes to on the samples that all ranks read, step by step."""

    def look(case: Case, chart: Chart) -> None:
        each = [chart.noted(rank, "samples") for rank in range(chart.ranks)]
        if len({len(own) for own in each}) > 1:
            raise Unhealthy(f"the ranks read {', '.join(str(len(own)) for own in each)} batches", advice)
        steps = [[place for batch in step for place in batch] for step in zip(*each, strict=True)]
        right = trained(chart.seed, points(SAMPLES, chart.seed), steps).weights
        for rank in range(chart.ranks):
            same(chart.state(rank), right, f"rank {rank}", advice)

    return look


def sign(chart: Chart) -> bool:
    """In every step all ranks read the same samples."""
    if not chart.results:
        return False
    return chart.ranks > 1 and len({str(chart.noted(rank, "samples")) for rank in range(chart.ranks)}) == 1


CASE = Case(
    number=17,
    title="Four GPUs learn as much as one",
    complaint=(
        "The job scales perfectly: four times the tokens per second. But the loss per step is that of one GPU, to the "
        "last digit, and an epoch takes as many steps as on one. All ranks report the same loss, which we took for a "
        "good sign."
    ),
    cause="same samples",
    evidence="every rank reports the same loss, and reads all samples in an epoch.",
    job=job,
    mended=mended,
    given=given,
    demands=(
        alike(),
        reads(lambda ranks, seed: EPOCHS * list(range(SAMPLES)), "How many samples does an epoch have?"),
        trains_on_what_it_reads("The gradient is the mean over what all ranks read."),
    ),
    sign=sign,
    also=(2, 3),
)
