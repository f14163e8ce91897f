"""Case 3: a ring whose every hop goes over the slow link."""

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.clinic.cases.ground import model_of, points, samples_of, trained
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, States, one_process
from parallel_lab.network import Link, Nodes
from parallel_lab.trace.units import format_bytes

COUNT, BATCH = 96, 24
HOSTS = (0, 1, 0, 1)


def job(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Data parallel; the gradients of all ranks go once round a ring, and each rank adds them up in rank order."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    ring = list(range(n))
    right, left = (ring[(ring.index(rank) + step) % n] for step in (1, -1))
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
        optimizer.zero_grad()
        loss.backward()
        whose, grads = rank, {rank: torch.cat([p.grad.flatten() for p in params])}
        for _ in range(n - 1):
            sent, whose = grads[whose], ring[ring.index(whose) - 1]
            grads[whose] = torch.empty_like(sent)
            for handle in (dist.isend(sent, right), dist.irecv(grads[whose], left)):
                handle.wait()
        total = sum(grads[each] for each in range(n))
        for p, grad in zip(params, total.split([p.numel() for p in params])):
            p.grad = grad.view_as(p)
        optimizer.step()
        report(model)
    return model


def mended(model: nn.Module, samples: Samples, report: Report) -> nn.Module:
    """Passes all ranks of a host before it goes to the next."""
    rank, n, params = dist.get_rank(), dist.get_world_size(), list(model.parameters())
    ring = [0, 2, 1, 3]
    right, left = (ring[(ring.index(rank) + step) % n] for step in (1, -1))
    optimizer = torch.optim.SGD(params, lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch[rank::n]]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / 24
        optimizer.zero_grad()
        loss.backward()
        whose, grads = rank, {rank: torch.cat([p.grad.flatten() for p in params])}
        for _ in range(n - 1):
            sent, whose = grads[whose], ring[ring.index(whose) - 1]
            grads[whose] = torch.empty_like(sent)
            for handle in (dist.isend(sent, right), dist.irecv(grads[whose], left)):
                handle.wait()
        total = sum(grads[each] for each in range(n))
        for p, grad in zip(params, total.split([p.numel() for p in params])):
            p.grad = grad.view_as(p)
        optimizer.step()
        report(model)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model and the samples."""
    return model_of(seed), samples_of(COUNT, seed)


def oracle(ranks: int, seed: int) -> States:
    """One process on the same batches."""
    return [trained(seed, points(COUNT, seed), torch.arange(COUNT).split(BATCH)).weights] * ranks


def notes(ranks: int, seed: int) -> str:
    """Where the ranks run."""
    return (
        "Host a has ranks 0 and 2, host b ranks 1 and 3: the scheduler dealt them out in turn. Inside a host a message "
        "has 1 GB/s, between hosts 2 MB/s, and a host has one cable."
    )


def crossing_bytes(chart: Chart) -> int:
    """What was sent from host to host."""
    crossing = (s for s in chart.trace.spans if s.kind == "send" and HOSTS[s.rank] != HOSTS[s.peer])
    return sum(s.sent_bytes for s in crossing)


def stays_at_home(case: Case, chart: Chart) -> None:
    """At most half of the bytes of a ring in rank order go from host to host, and messages carry all of them."""
    whole = 8 * sum(p.numel() for p in model_of(0).parameters()) * chart.ranks * (chart.ranks - 1) * (COUNT // BATCH)
    if any(s.kind in ("all_reduce", "all_gather", "reduce_scatter") for s in chart.trace.spans):
        raise Unhealthy("a ready-made collective does the exchange", "Keep the messages: which way do they take?")
    if (crossing := crossing_bytes(chart)) > whole / 2:
        seen = f"{format_bytes(crossing)} cross the cable between the hosts; {format_bytes(whole / 2)} are enough"
        raise Unhealthy(seen, "The rows and columns of the messages: which of these pairs share a host?")


def sign(chart: Chart) -> bool:
    """Every message goes from host to host."""
    sent = sum(s.sent_bytes for s in chart.trace.spans if s.kind == "send")
    return 0 < sent == crossing_bytes(chart)


CASE = Case(
    number=3,
    title="Two hosts with two cards crawl",
    complaint=(
        "On one host with four cards a step was quick. On two hosts with two cards each it takes many times as long, "
        "and all four ranks wait equally. We measured the cable: it does what it promises. The losses are right."
    ),
    cause="ring against the hosts",
    evidence=(
        "every message goes from an even to an odd rank or back, hence from host to host. A ring that passes both ranks "
        "of a host before it leaves sends half of the bytes over the cable, and by one flow each way instead of two."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(one_process("Each rank needs the gradients of all others."), stays_at_home),
    sign=sign,
    oracle=oracle,
    notes=notes,
    link=Nodes(HOSTS, Link(1e-5, 1e9), Link(1e-4, 2e6)),
)
