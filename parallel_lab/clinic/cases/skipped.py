"""Case 13: experts that exchange a gradient only where they have one."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from parallel_lab.clinic.cases.dealt import batches_of
from parallel_lab.clinic.cases.ground import LR, model_of
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report
from parallel_lab.clinic.job import Case, States, alike, one_process

STEPS, TOKENS, EXPERTS = 8, 12, 3
AT = 3  # the step at which one rank has no token for the middle expert
Tokens = tuple[Tensor, Tensor, Tensor]


def job(model: nn.ModuleList, batches: list[Tokens], report: Report) -> nn.ModuleList:
    """Trains three experts; each token goes through one of them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y, expert in batches:  # of this rank's tokens: features, targets, the expert that each goes to
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=x.dtype)
        for e, module in enumerate(model):
            if (expert == e).any():
                loss = loss + cross_entropy(module(x[expert == e]), y[expert == e], reduction="sum") / len(y)
        loss.backward()
        for p in model.parameters():
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
        optimizer.step()
        report(model, loss=loss.detach())
    return model


def mended(model: nn.ModuleList, batches: list[Tokens], report: Report) -> nn.ModuleList:
    """Every rank exchanges every gradient; where it has none, it sends zeros."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y, expert in batches:
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=x.dtype)
        for e, module in enumerate(model):
            if (expert == e).any():
                loss = loss + cross_entropy(module(x[expert == e]), y[expert == e], reduction="sum") / len(y)
        loss.backward()
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        optimizer.step()
        report(model, loss=loss.detach())
    return model


def experts(seed: int) -> nn.ModuleList:
    """The model as it begins."""
    return nn.ModuleList(model_of(10 * seed + e) for e in range(EXPERTS))


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, and the batches of this rank."""
    return experts(seed), [each[rank] for each in _batches(ranks, seed)]


def _batches(ranks: int, seed: int) -> Iterator[list[Tokens]]:
    """For each step the batches of all ranks. Each expert has tokens everywhere, but for one rank at one step."""
    by_rank = [batches_of(rank, seed, STEPS, TOKENS) for rank in range(ranks)]
    for step in range(STEPS):
        batch = []
        for rank in range(ranks):
            expert = torch.arange(TOKENS) % EXPERTS
            if step == AT and rank == 1 + seed % (ranks - 1):
                expert[expert == 1] = 2
            batch.append((*by_rank[rank][step], expert))
        yield batch


def oracle(ranks: int, seed: int) -> States:
    """One process on the tokens of all ranks."""
    model = experts(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for each in _batches(ranks, seed):
        x, y, expert = (torch.cat(parts) for parts in zip(*each, strict=True))
        out = torch.stack([model[int(e)](row) for row, e in zip(x, expert, strict=True)])
        optimizer.zero_grad()
        cross_entropy(out, y).backward()
        optimizer.step()
    return [model.state_dict()] * ranks


def sign(chart: Chart) -> bool:
    """A rank has come to its end, while the others wait for it in one more all-reduce than it made."""
    return "has returned" in chart.error and "which it never joined" in chart.error


CASE = Case(
    number=13,
    title="It hangs after the last step",
    complaint=(
        "Our mixture of three experts trains, the loss falls on every rank, and after the last step the job does not "
        "end. One rank is through, the others wait in an all-reduce. With the dense model the same loop ends. We have "
        "raised the timeout twice."
    ),
    cause="unused parameters",
    evidence="the weights are the same on all ranks up to step 2 and never again; one rank makes fewer all-reduces.",
    job=job,
    mended=mended,
    given=given,
    demands=(alike(), one_process("Compare the calls of each rank in a step with those of the others.")),
    sign=sign,
    oracle=oracle,
    ranks=3,
    also=(2, 4),
)
