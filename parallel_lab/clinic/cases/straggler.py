"""Case 2: a rank that takes longer than the others."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportOptionalMemberAccess=false

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.clinic.cases.ground import model_of, points, samples_of, trained
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, same
from parallel_lab.runtime import Delay
from parallel_lab.trace import span

COUNT, BATCH, STEPS, SLOW, DELAY_S = 192, 24, 8, 2, 0.05


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Data parallel on the hosts that the scheduler gave us."""
    hosts = [0, 1, 2, 3]
    group, n = dist.new_group(hosts), len(hosts)
    if dist.get_rank() not in hosts:
        return model
    place, params = hosts.index(dist.get_rank()), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        with span("work"):
            x, y = samples[batch[place::n]]
            loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
            optimizer.zero_grad()
            loss.backward()
        flat = torch.cat([*(p.grad.flatten() for p in params), loss.detach()[None]])
        dist.all_reduce(flat, group=group)
        *grads, loss = flat.split([*(p.numel() for p in params), 1])
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.view_as(p)
        optimizer.step()
        report(model, loss=loss)
    return model


def mended(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Leaves the slow host out; the other three share its samples."""
    hosts = [0, 1, 3]
    group, n = dist.new_group(hosts), len(hosts)
    if dist.get_rank() not in hosts:
        return model
    place, params = hosts.index(dist.get_rank()), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        with span("work"):
            x, y = samples[batch[place::n]]
            loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
            optimizer.zero_grad()
            loss.backward()
        flat = torch.cat([*(p.grad.flatten() for p in params), loss.detach()[None]])
        dist.all_reduce(flat, group=group)
        *grads, loss = flat.split([*(p.numel() for p in params), 1])
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.view_as(p)
        optimizer.step()
        report(model, loss=loss)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model and the samples."""
    return model_of(seed), samples_of(COUNT, seed)


def keeps_pace(case: Case, chart: Chart) -> None:
    """The rank that is slow reads nothing and joins no step, the others do all the work."""
    at_work = [rank for rank in range(chart.ranks) if chart.noted(rank, "samples")]
    joined = sum(s.kind == "all_reduce" and s.lane == "send" for s in chart.trace.of(SLOW))
    if SLOW in at_work or joined >= STEPS:
        raise Unhealthy("the job still waits at every step", "In each step, who calls the all-reduce last?")
    if len(at_work) < chart.ranks - 1:
        raise Unhealthy(f"only {len(at_work)} of {chart.ranks} hosts work", "How many of them are healthy?")
    got = sorted(place for rank in at_work for each in chart.noted(rank, "samples") for place in each)
    if got != list(range(COUNT)):
        raise Unhealthy(f"{COUNT - len(set(got))} of {COUNT} samples are missed", "Who takes over the share?")
    right = trained(chart.seed, points(COUNT, chart.seed), torch.arange(COUNT).split(BATCH)).weights
    for rank in at_work:
        same(chart.state(rank), right, f"rank {rank}", "The global batch has 24 samples, however many hosts share it.")


def sign(chart: Chart) -> bool:
    """One rank works for far longer than the others, which wait for it."""
    works = [chart.trace.busy_s(rank) for rank in range(chart.ranks)]
    return works.index(max(works)) == SLOW and max(works) > STEPS * DELAY_S


CASE = Case(
    number=2,
    title="Four hosts are no faster than one",
    complaint=(
        "The same job, the same network, since last night every step takes several times as long. The losses are "
        "right. Our dashboard says that the time goes into all_reduce, so the network people are looking at the "
        "switches."
    ),
    cause="slow rank",
    evidence=(
        "rank 2 waits least in the all-reduces and works longest between them. The others wait for it: their all-"
        "reduce begins when they call it and ends when rank 2 has come, so the time is booked under communication."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(keeps_pace,),
    sign=sign,
    faults=(Delay(rank=SLOW, kind="all_reduce", seconds=DELAY_S),),
)
