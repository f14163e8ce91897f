"""Case 18: two stages that both send first."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from parallel_lab.clinic.cases.dealt import Batch, batches_of
from parallel_lab.clinic.cases.ground import CLASSES, FEATURES, LR
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Report
from parallel_lab.clinic.job import Case, Demand, States, one_process
from parallel_lab.model.reference import build, train

STEPS, MICROBATCHES, BATCH, WIDTH = 3, 6, 4, 5
FLIGHT = 2  # microbatches that a pipeline of two stages may hold
Microbatches = list[Batch]


def job(stage: nn.Module, batches: list[Microbatches], report: Report) -> nn.Module:
    """Trains a pipeline of two stages, one forward, one backward; the first stage is one microbatch ahead."""
    optimizer, rank = torch.optim.SGD(stage.parameters(), lr=0.5), dist.get_rank()
    for microbatches in batches:
        m, held, todo = len(microbatches), [], list(microbatches)
        optimizer.zero_grad()
        for turn in "FB" * m if rank == 1 else "F" + "FB" * (m - 1) + "B":
            if turn == "F":
                x, y = todo.pop(0)
                if rank == 1:
                    x = torch.empty(len(y), 5, dtype=x.dtype)
                    dist.recv(x, 0)
                held.append((x.requires_grad_(), y, stage(x)))
                if rank == 0:
                    dist.send(held[-1][2].detach(), 1)
            else:
                x, y, out = held.pop(0)
                grad = torch.empty_like(out)
                if rank == 0:
                    dist.recv(grad, 1)
                out.backward(grad) if rank == 0 else (cross_entropy(out, y) / m).backward()
                if rank == 1:
                    dist.send(x.grad, 0)
        optimizer.step()
        report(stage)
    return stage


def mended(stage: nn.Module, batches: list[Microbatches], report: Report) -> nn.Module:
    """The first stage does not wait for its sends before it takes the gradient that the second is sending."""
    optimizer, rank = torch.optim.SGD(stage.parameters(), lr=0.5), dist.get_rank()
    for microbatches in batches:
        m, held, todo, sent = len(microbatches), [], list(microbatches), []
        optimizer.zero_grad()
        for turn in "FB" * m if rank == 1 else "F" + "FB" * (m - 1) + "B":
            if turn == "F":
                x, y = todo.pop(0)
                if rank == 1:
                    x = torch.empty(len(y), 5, dtype=x.dtype)
                    dist.recv(x, 0)
                held.append((x.requires_grad_(), y, stage(x)))
                if rank == 0:
                    out = held[-1][2].detach()
                    sent.append((dist.isend(out, 1), out))
            else:
                x, y, out = held.pop(0)
                grad = torch.empty_like(out)
                if rank == 0:
                    dist.recv(grad, 1)
                    sent.pop(0)[0].wait()
                out.backward(grad) if rank == 0 else (cross_entropy(out, y) / m).backward()
                if rank == 1:
                    dist.send(x.grad, 0)
        optimizer.step()
        report(stage)
    return stage


def stages(seed: int) -> list[nn.Module]:
    """Both stages as they begin."""
    first = nn.Sequential(*build((FEATURES, WIDTH, WIDTH), seed, torch.float64), nn.ReLU())
    return [first, build((WIDTH, CLASSES), seed + 50, torch.float64)]


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The stage of this rank, and the microbatches of each step."""
    return stages(seed)[rank], _batches(seed)


def _batches(seed: int) -> list[Microbatches]:
    each = batches_of(0, seed, STEPS * MICROBATCHES, BATCH)
    return [each[first : first + MICROBATCHES] for first in range(0, len(each), MICROBATCHES)]


def oracle(ranks: int, seed: int) -> States:
    """One process with both stages, all microbatches of a step in one batch."""
    both = nn.Sequential(*stages(seed))
    whole = [(torch.cat([x for x, _ in each]), torch.cat([y for _, y in each])) for each in _batches(seed)]
    right = train(both, whole, torch.optim.SGD, lr=LR).weights
    return [{n[2:]: t for n, t in right.items() if n.startswith(f"{rank}.")} for rank in range(2)]


def in_flight(chart: Chart) -> int:
    """The most microbatches that the first stage has sent forward and not yet asked back."""
    most = flying = 0
    for s in chart.trace.of(0):
        flying += (s.kind == "send") - (s.kind == "recv")
        most = max(most, flying)
    return most


def holds_few() -> Demand:
    """The first stage holds two microbatches and no more."""

    def look(case: Case, chart: Chart) -> None:
        if (most := in_flight(chart)) > FLIGHT:
            seen = f"the first stage held {most} microbatches at once; there is memory for {FLIGHT}"
            raise Unhealthy(seen, "It is to stay one forward, one backward.")

    return look


def sign(chart: Chart) -> bool:
    """Both ranks wait in a send to the other."""
    return "a circle" in chart.error and chart.error.count("waits in send(to rank") == 2


CASE = Case(
    number=18,
    title="The pipeline stops at its first microbatches",
    complaint=(
        "Two stages, one forward, one backward. With one microbatch per step it trains; with two and more it stands "
        "still in the first step, always at the same place. No rank has died, and the machines are fine: a pipeline "
        "of all forward passes first runs on them."
    ),
    cause="blocking sends in a circle",
    evidence="each of two ranks waits in a send to the other, so neither comes to its receive.",
    job=job,
    mended=mended,
    given=given,
    demands=(one_process("Each stage ends where one process with both ends."), holds_few()),
    sign=sign,
    oracle=oracle,
    ranks=2,
)
