"""Case 10: a gradient that 16 bits cannot hold, on one rank."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportIndexIssue=false, reportOptionalMemberAccess=false

from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.clinic.cases.ground import model_of, points
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, alike

COUNT, BATCH, STEPS, BAD, LARGEST = 192, 24, 8, 3, 65504.0
FAINT = 1e-6  # the size of one input beside the others: its gradients are as small
NEAR = 0.02  # relative to how far the weights of an input moved; 16 bits have three digits


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Mixed precision: the loss is scaled up, and gradients travel as float16."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer, scale = torch.optim.SGD(params, lr=0.5), 2.0**14
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (scale * loss).backward()
        largest = max(p.grad.abs().max() for p in params)
        for p in params:
            half = p.grad.half()
            dist.all_reduce(half)
            p.grad = half.float() / (scale * n)
        optimizer.step()
        report(model, loss=loss, largest_gradient=largest)
    return model


def mended(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Where any rank overflows, all leave out the step and halve the scale."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer, scale = torch.optim.SGD(params, lr=0.5), 2.0**14
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (scale * loss).backward()
        largest = max(p.grad.abs().max() for p in params)
        finite = True
        for p in params:
            half = p.grad.half()
            dist.all_reduce(half)
            p.grad = half.float() / (scale * n)
            finite = finite and bool(p.grad.isfinite().all())
        if finite:
            optimizer.step()
        else:
            scale /= 2
        report(model, loss=loss, largest_gradient=largest)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model in float32, and the samples."""
    return _model(seed).float(), Samples(*_data(ranks, seed))


def _model(seed: int) -> nn.Module:
    """The model in float64; the weights of the last input begin at zero."""
    model = model_of(seed)
    with torch.no_grad():
        model[0].weight[:, -1] = 0
    return model


def _data(ranks: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points whose last input is tiny; one of them, in step 3 on the last rank, is far from all others."""
    inputs, targets = points(COUNT, seed)
    inputs, targets = inputs.float(), targets.clone()
    inputs[:, -1] *= FAINT
    place = BAD * BATCH + ranks - 1
    inputs[place, :-1] *= 120
    targets[place] = _model(seed)(inputs[place].double()).argmin()  # the class that the model thinks least of
    return inputs, targets


@cache
def _one_process(ranks: int, seed: int, skip: bool) -> dict[str, Tensor]:
    """The weights in float64, with the bad batch or without it."""
    model, (inputs, targets) = _model(seed), _data(ranks, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step, batch in enumerate(torch.arange(COUNT).split(BATCH)):
        if skip and step == BAD:
            continue
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[batch].double()), targets[batch]).backward()
        optimizer.step()
    return model.state_dict()


def trains(case: Case, chart: Chart) -> None:
    """All weights are finite, and those of one process with the bad batch or without; also those that barely move."""
    for rank in range(chart.ranks):
        if any(not each.isfinite().all() for each in chart.state(rank).values()):
            raise Unhealthy(
                f"rank {rank} ends with weights that are not finite", "In which step did it begin, and where?"
            )
    start, got = _model(chart.seed).state_dict(), chart.state(0)
    ends = [_one_process(chart.ranks, chart.seed, skip) for skip in (True, False)]
    if all(_apart(got, end, start, slice(None, -1)) > NEAR for end in ends):
        advice = "A step with a gradient that does not fit is taken with the right one, or by no rank at all."
        raise Unhealthy("the weights are those of no process that takes the large batch, or leaves it out", advice)
    if all(_apart(got, end, start, slice(-1, None)) > NEAR for end in ends):
        seen = "the weights of the last input, whose gradients are a million times smaller, do not move as they should"
        raise Unhealthy(seen, "What is the scale there for?")


def _apart(got: dict, right: dict, start: dict, inputs: slice) -> float:
    """How far the weights of these inputs are from the right ones, relative to how far those moved."""
    moved = right["0.weight"][:, inputs] - start["0.weight"][:, inputs]
    return ((got["0.weight"][:, inputs].double() - right["0.weight"][:, inputs]).norm() / moved.norm()).item()


def sign(chart: Chart) -> bool:
    """One rank alone has a gradient beyond what float16 holds, and from then on no rank has a finite loss."""
    largest = [chart.column(rank, "largest_gradient") for rank in range(chart.ranks)]
    beyond = [rank for rank in range(chart.ranks) if largest[rank][BAD] > LARGEST]
    return beyond == [chart.ranks - 1] and all(own[-1] != own[-1] for own in largest)


CASE = Case(
    number=10,
    title="NaN on all ranks at once",
    complaint=(
        "It trains well for some steps. Then all ranks have NaN in the same step, in every weight, and never recover."
        " In float32 the same data give no NaN. One host after the other was replaced; it happens at the same step."
    ),
    cause="overflow on one rank",
    evidence=(
        "in step 3, the last with finite losses, rank 3 alone has a gradient beyond 65,504, the largest number of "
        "float16. On the wire it is infinite, and the all-reduce gives it to all."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(trains, alike("Who decides that a step is left out, and who hears of it?")),
    sign=sign,
    also=(2,),
)
