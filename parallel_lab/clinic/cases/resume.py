"""Case 12: a loader that begins again where the optimizer goes on."""

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.clinic.cases.ground import LR, model_of, points, samples_of
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, States, alike, one_process, reads

COUNT, BATCH, STEPS, CRASH, EPOCH = 240, 24, 10, 6, 5


def job(saved: dict[str, Any], samples: Samples, report: Report) -> nn.Module:
    """Goes on with epoch 5 from the last checkpoint."""
    rank, n, model = dist.get_rank(), dist.get_world_size(), saved["model"]
    params = list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5, momentum=0.9)
    optimizer.load_state_dict(saved["optimizer"])
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(saved["epoch"]))
    loader = iter(order.split(24))
    for _ in range(saved["step"], 10):
        batch = next(loader)
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
        optimizer.zero_grad()
        loss.backward()
        for p in [*params, loss]:
            dist.all_reduce(p.detach() if p is loss else p.grad)
        optimizer.step()
        report(model, loss=loss, first_sample=batch[0])
    return model


def mended(saved: dict[str, Any], samples: Samples, report: Report) -> nn.Module:
    """Leaves out the batches that were read before the checkpoint."""
    rank, n, model = dist.get_rank(), dist.get_world_size(), saved["model"]
    params = list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5, momentum=0.9)
    optimizer.load_state_dict(saved["optimizer"])
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(saved["epoch"]))
    loader = iter(order.split(24)[saved["step"] :])
    for _ in range(saved["step"], 10):
        batch = next(loader)
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
        optimizer.zero_grad()
        loss.backward()
        for p in [*params, loss]:
            dist.all_reduce(p.detach() if p is loss else p.grad)
        optimizer.step()
        report(model, loss=loss, first_sample=batch[0])
    return model


def _order() -> torch.Tensor:
    """The samples of the epoch in their order."""
    return torch.randperm(COUNT, generator=torch.Generator().manual_seed(EPOCH))


def _trained(seed: int, steps: int) -> tuple[nn.Module, torch.optim.Optimizer, list[float]]:
    """One process after so many steps of the epoch; model, optimizer, losses."""
    model, (inputs, targets), losses = model_of(seed), points(COUNT, seed), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    for batch in _order().split(BATCH)[:steps]:
        loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, optimizer, losses


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The checkpoint of step 6, and the samples."""
    model, optimizer, _ = _trained(seed, CRASH)
    saved = {"model": model, "optimizer": optimizer.state_dict(), "epoch": EPOCH, "step": CRASH}
    return saved, samples_of(COUNT, seed)


@cache
def oracle(ranks: int, seed: int) -> States:
    """A run of the whole epoch without a crash."""
    return [_trained(seed, STEPS)[0].state_dict()] * ranks


def notes(ranks: int, seed: int) -> str:
    """The log of the run before the crash."""
    firsts = ", ".join(str(int(batch[0])) for batch in _order().split(BATCH)[:CRASH])
    losses = ", ".join(f"{each:.4g}" for each in _trained(seed, CRASH)[2])
    return (
        f"The log of this epoch up to the checkpoint, steps 0 to {CRASH - 1}:\n"
        f"  loss {losses}\n  first_sample {firsts}\n"
        f"Step 0 above is step {CRASH} of the epoch."
    )


def sign(chart: Chart) -> bool:
    """Samples that were read before the checkpoint are read again."""
    before = set(_order()[: CRASH * BATCH].tolist())
    return any(
        place in before for rank in range(chart.ranks) for each in chart.noted(rank, "samples") for place in each
    )


CASE = Case(
    number=12,
    title="Runs that were interrupted test worse",
    complaint=(
        "A node died in the middle of the epoch and the job went on from its checkpoint. Weights, optimizer and step "
        "were loaded, I compared them bit by bit. Nothing in the log is red. But the more often a run was interrupted, "
        "the larger the gap between its train loss and its test loss."
    ),
    cause="data repeated after resume",
    evidence=(
        "the first samples of the batches after the restart, 131, 68, 112 and 163, are those of the first steps of the "
        "epoch. They are trained on twice, and as many others are read in no step of the epoch."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(
        reads(
            lambda ranks, seed: _order()[CRASH * BATCH :].tolist(),
            "In an epoch each sample is read once: which are left after the checkpoint?",
        ),
        alike(),
        one_process("A run that was never interrupted is the measure."),
    ),
    sign=sign,
    oracle=oracle,
    notes=notes,
    also=(2,),
)
