"""Case 3: the groups that talk most lie across the slow link."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportArgumentType=false, reportCallIssue=false

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.clinic.cases.ground import CLASSES, FEATURES, LR, points, samples_of
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import Case, same
from parallel_lab.model.reference import build, train
from parallel_lab.network import Link, Nodes
from parallel_lab.trace.units import format_bytes

COUNT, BATCH, WIDTH, HOSTS = 384, 192, 12, (0, 1, 0, 1)
Cut = Callable[[nn.Sequential, int, int], nn.Sequential]


def job(model: nn.Sequential, cut: Cut, samples: Samples, report: Report) -> nn.Sequential:
    """Two by two: two ranks share the layers, each has half of both; two such pairs share the samples."""
    layer_pairs, sample_pairs = [[0, 1], [2, 3]], [[0, 2], [1, 3]]
    groups = {tuple(pair): dist.new_group(pair) for pair in layer_pairs + sample_pairs}
    layers, share = (next(p for p in ps if dist.get_rank() in p) for ps in (layer_pairs, sample_pairs))
    model = cut(model, layers.index(dist.get_rank()), 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for batch in torch.arange(len(samples)).split(192):
        optimizer.zero_grad()
        for piece in batch[share.index(dist.get_rank()) :: 2].split(12):
            x, y = samples[piece]
            part = model(x)
            logits = part.detach().clone()
            dist.all_reduce(logits, group=groups[tuple(layers)])
            logits = part + (logits - part.detach())  # the sum; its gradient goes to the part
            (nn.functional.cross_entropy(logits, y, reduction="sum") / 192).backward()
        for p in model.parameters():
            dist.all_reduce(p.grad, group=groups[tuple(share)])
        optimizer.step()
        report(model)
    return model


def mended(model: nn.Sequential, cut: Cut, samples: Samples, report: Report) -> nn.Sequential:
    """The ranks of a host share the layers."""
    layer_pairs, sample_pairs = [[0, 2], [1, 3]], [[0, 1], [2, 3]]
    groups = {tuple(pair): dist.new_group(pair) for pair in layer_pairs + sample_pairs}
    layers, share = (next(p for p in ps if dist.get_rank() in p) for ps in (layer_pairs, sample_pairs))
    model = cut(model, layers.index(dist.get_rank()), 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for batch in torch.arange(len(samples)).split(192):
        optimizer.zero_grad()
        for piece in batch[share.index(dist.get_rank()) :: 2].split(12):
            x, y = samples[piece]
            part = model(x)
            logits = part.detach().clone()
            dist.all_reduce(logits, group=groups[tuple(layers)])
            logits = part + (logits - part.detach())
            (nn.functional.cross_entropy(logits, y, reduction="sum") / 192).backward()
        for p in model.parameters():
            dist.all_reduce(p.grad, group=groups[tuple(share)])
        optimizer.step()
        report(model)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The whole model, what cuts it, and the samples."""
    return _model(seed), cut_model, samples_of(COUNT, seed)


def _model(seed: int) -> nn.Sequential:
    model = build((FEATURES, WIDTH, CLASSES), seed, torch.float64)
    model[2].bias = None  # each part would add it
    return model


def cut_model(model: nn.Sequential, part: int, parts: int) -> nn.Sequential:
    """Part `part` of `parts`: rows of the first weight, columns of the second."""
    with torch.no_grad():
        for layer, dim in ((model[0], 0), (model[2], 1)):
            layer.weight = nn.Parameter(layer.weight.chunk(parts, dim)[part].clone())
        model[0].bias = nn.Parameter(model[0].bias.chunk(parts)[part].clone())
    return model


def trains(case: Case, chart: Chart) -> None:
    """Each rank has one of the two parts of the model that one process trains; each part is there twice."""
    inputs, targets = points(COUNT, chart.seed)
    batches = [(inputs[b], targets[b]) for b in torch.arange(COUNT).split(BATCH)]
    weights = train(_model(chart.seed), batches, torch.optim.SGD, lr=LR).weights
    parts = [cut_model(_loaded(chart.seed, weights), part, 2).state_dict() for part in (0, 1)]
    held = []
    for rank in range(chart.ranks):
        state = chart.state(rank)
        if state.keys() != parts[0].keys() or any(state[name].shape != parts[0][name].shape for name in state):
            raise Unhealthy(f"rank {rank} has no half of the model", "Two ranks share the layers, as before.")
        apart = [max((state[name] - part[name]).abs().max().item() for name in part) for part in parts]
        held.append(apart.index(min(apart)))
        same(state, parts[held[-1]], f"rank {rank}", "Which ranks have the same part, and which have the same samples?")
    if sum(held) * 2 != chart.ranks:
        raise Unhealthy("some part of the model is on no rank, or on three", "Each half of the layers is there twice.")


def _loaded(seed: int, weights: dict) -> nn.Sequential:
    model = _model(seed)
    model.load_state_dict(weights)
    return model


def crossing_bytes(chart: Chart) -> int:
    """What is sent in groups that do not lie on one host."""
    return sum(size for ranks, size in chart.groups().items() if len({HOSTS[rank] for rank in ranks}) > 1)


def stays_at_home(case: Case, chart: Chart) -> None:
    """What is exchanged most often stays inside the hosts."""
    if crossing_bytes(chart) * 2 > (whole := sum(chart.groups().values())):
        seen = f"{format_bytes(crossing_bytes(chart))} of {format_bytes(whole)} go from host to host"
        raise Unhealthy(seen, "Which groups send most, and where do their ranks run?")


def notes(ranks: int, seed: int) -> str:
    """Where the ranks run."""
    return (
        "Host a has ranks 0 and 2, host b ranks 1 and 3: so the scheduler deals them out since the update.\n"
        "A message takes 10 µs inside a host, and 5 ms from host to host."
    )


def sign(chart: Chart) -> bool:
    """Most of the bytes are sent in groups whose ranks are on different hosts."""
    return crossing_bytes(chart) * 2 > sum(chart.groups().values())


CASE = Case(
    number=3,
    title="Slower since the update of the scheduler",
    complaint=(
        "Same two hosts, two cards each, same code, same losses. Since the update of the scheduler each step takes "
        "more than twice as long. All ranks wait, none more than the others. We measured the cable between the hosts: "
        "it does what it always did."
    ),
    cause="busy axis across hosts",
    evidence=(
        "the bytes by group: the pairs 0 1 and 2 3, which share the layers, send most, and each of these pairs lies on "
        "two hosts. The pairs that share the samples talk once per step and have the fast link."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(trains, stays_at_home),
    sign=sign,
    notes=notes,
    link=Nodes(HOSTS, Link(1e-5, 1e9), Link(5e-3, 1e6)),
)
