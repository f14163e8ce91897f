"""Case 11: a decision that each rank takes for itself."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportOperatorIssue=false

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.clinic.cases.ground import model_of, points, trained
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, States, alike, one_process

COUNT, BATCH, STEPS, BAD = 192, 24, 8, 3


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Data parallel; a broken record, whose loss is absurd, is not to spoil the weights."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in params:
            dist.all_reduce(p.grad)
            p.grad /= n
        nn.utils.clip_grad_norm_(params, 1.0)
        if loss < 8:
            optimizer.step()
        report(model, loss=loss)
    return model


def mended(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Leaves out a step on all ranks where one of them has such a loss."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in params:
            dist.all_reduce(p.grad)
            p.grad /= n
        nn.utils.clip_grad_norm_(params, 1.0)
        worst = loss.detach().clone()
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        if worst < 8:
            optimizer.step()
        report(model, loss=loss)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model and the samples."""
    return model_of(seed), Samples(*_data(ranks, seed))


def _data(ranks: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points, of which rank 1 gets some with inputs a thousand times too large and a wrong class in step 3."""
    inputs, targets = points(COUNT, seed)
    inputs, targets = inputs.clone(), targets.clone()
    broken = torch.arange(BAD * BATCH, (BAD + 1) * BATCH)[1::ranks]
    inputs[broken] *= 1000
    targets[broken] = (targets[broken] + 2) % 4
    return inputs, targets


def oracle(ranks: int, seed: int) -> States:
    """One process that leaves out the batch with the broken records."""
    batches = [batch for step, batch in enumerate(torch.arange(COUNT).split(BATCH)) if step != BAD]
    return [trained(seed, _data(ranks, seed), batches).weights] * ranks


def sign(chart: Chart) -> bool:
    """All ranks have the same weights up to one step, and from then on one of them has others."""
    steps = zip(*(chart.column(rank, "weights") for rank in range(chart.ranks)), strict=True)
    different = [len(set(each)) for each in steps]
    return different == [1] * BAD + [2] * (STEPS - BAD)


CASE = Case(
    number=11,
    title="The checkpoint of host 1 scores differently",
    complaint=(
        "Each host saves its own copy, to be quick. They should be the same, and were for a day; now the copy of rank"
        " 1 scores differently from the others. Nothing crashed. The train losses look alike, but for one spike that "
        "we are prepared for."
    ),
    cause="weights drifted apart",
    evidence=(
        "the letters of the weights: equal on all ranks until the spike, and from that step on another letter on rank"
        " 1. Gradients were still averaged, but one rank took no step: it alone saw the loss that the guard looks at."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(
        alike("From which step on do they differ, and what is special about it?"),
        one_process(
            "The guard is there for a purpose: broken records must move no rank's weights, and "
            "their step is left out whole."
        ),
    ),
    sign=sign,
    oracle=oracle,
    also=(2,),
)
