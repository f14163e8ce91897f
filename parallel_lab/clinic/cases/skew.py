"""Case 1: a sorted file, cut into parts."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportPossiblyUnboundVariable=false

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.clinic.cases.ground import CLASSES, model_of, points
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, alike, reads, sends

COUNT, ROUNDS, LIMIT = 240, 3, 0.45
Points = tuple[Tensor, Tensor]


def job(model: nn.Module, samples: Samples, test: Points, report: Report) -> nn.Module:
    """Local SGD: in each round a rank trains alone on its part of the file, then all take the mean of the weights."""
    rank, n = dist.get_rank(), dist.get_world_size()
    size = len(samples) // n
    mine = torch.arange(rank * size, (rank + 1) * size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        for part in mine.split(4):
            x, y = samples[part]
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for p in model.parameters():
            dist.all_reduce(p.data)
            p.data /= n
        report(model, train_loss=loss, test_loss=nn.functional.cross_entropy(model(test[0]), test[1]))
    return model


def mended(model: nn.Module, samples: Samples, test: Points, report: Report) -> nn.Module:
    """Deals out the samples in an order that all ranks draw from one seed."""
    rank, n = dist.get_rank(), dist.get_world_size()
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(1))
    mine = order[rank::n]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        for part in mine.split(4):
            x, y = samples[part]
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for p in model.parameters():
            dist.all_reduce(p.data)
            p.data /= n
        report(model, train_loss=loss, test_loss=nn.functional.cross_entropy(model(test[0]), test[1]))
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, the file, sorted by class, and the test points."""
    inputs, targets = points(COUNT, seed, 0.7)
    order = targets.argsort(stable=True)
    return model_of(seed), Samples(inputs[order], targets[order]), points(COUNT, seed + 1, 0.7)


def generalizes(case: Case, chart: Chart) -> None:
    """The last mean of the weights does well on the test points: computed here, and not taken from the log."""
    model = model_of(chart.seed)
    model.load_state_dict(chart.state(0))
    inputs, targets = points(COUNT, chart.seed + 1, 0.7)
    loss = nn.functional.cross_entropy(model(inputs), targets).item()
    if not loss <= LIMIT:
        seen = f"after {ROUNDS} rounds the test loss is {loss:.3g}; {LIMIT} is within reach"
        raise Unhealthy(seen, "What does a rank learn in a round, and what is left of it in the mean?")


def sign(chart: Chart) -> bool:
    """No rank has read a sample of each class."""
    return all(len(set(chart.noted(rank, "classes"))) < CLASSES for rank in range(chart.ranks))


CASE = Case(
    number=1,
    title="Every rank says 0.01, the test says no",
    complaint=(
        "We average the weights once a pass over the data, to save bytes. The train loss is close to zero on every "
        "rank in every round. The test loss of the mean stays high. One rank alone, on all the data, has no such "
        "trouble."
    ),
    cause="skewed shards",
    evidence=(
        "the column of classes: each rank has read samples of one class only. It forgets the others in each round, so "
        "its own loss is low and the mean of the weights is good for nobody."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(
        reads(
            lambda ranks, seed: list(range(COUNT)) * ROUNDS,
            "Each sample is to be read once a round, by one rank: what does the union of the parts have?",
        ),
        sends(
            lambda ranks: (
                ROUNDS * 8 * sum(p.numel() for p in model_of(0).parameters()) * 2 * (ranks - 1) / ranks + 1000
            ),
            "One mean of the weights per round was the point of the job: exchange no more than that.",
        ),
        alike("The round ends with the mean of the weights on every rank."),
        generalizes,
    ),
    sign=sign,
)
