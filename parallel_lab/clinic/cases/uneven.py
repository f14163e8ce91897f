"""Case 9: ranks with unequal numbers of tokens."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportOperatorIssue=false

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report
from parallel_lab.clinic.job import Case, States, alike, one_process
from parallel_lab.model.reference import build, train

STEPS, LR, IN, OUT = 6, 0.5, 6, 4
Batch = tuple[Tensor, Tensor]


def job(model: nn.Module, batches: list[Batch], report: Report) -> nn.Module:
    """Trains on this rank's tokens."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y in batches:  # (tokens, features), (tokens,): the tokens of this rank
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        optimizer.step()
        dist.all_reduce(loss)
        report(model, loss=loss / dist.get_world_size(), tokens=len(y))
    return model


def mended(model: nn.Module, batches: list[Batch], report: Report) -> nn.Module:
    """Divides the sums of all ranks by the tokens of all ranks."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y in batches:
        count = torch.tensor(len(y))
        dist.all_reduce(count)
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / count
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
        optimizer.step()
        dist.all_reduce(loss)
        report(model, loss=loss, tokens=len(y))
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, and the batches of this rank."""
    return build((IN, 8, OUT), seed, torch.float64), [each[rank] for each in _batches(ranks, seed)]


def _batches(ranks: int, seed: int) -> Iterator[list[Batch]]:
    """For each step the batches of all ranks: rank 0 has few tokens, and of another kind."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        counts = [int(torch.randint(2, 5, (), generator=draw)), *[24 + 8 * rank for rank in range(1, ranks)]]
        features = [torch.randn(count, IN, generator=draw, dtype=torch.float64) for count in counts]
        yield [(x, x[:, :OUT].argmax(1) if rank else x[:, :OUT].argmin(1)) for rank, x in enumerate(features)]


def _whole(ranks: int, seed: int) -> list[Batch]:
    return [(torch.cat([x for x, _ in each]), torch.cat([y for _, y in each])) for each in _batches(ranks, seed)]


def oracle(ranks: int, seed: int) -> States:
    """One process on the tokens of all ranks."""
    whole = _whole(ranks, seed)
    return [train(build((IN, 8, OUT), seed, torch.float64), whole, torch.optim.SGD, lr=LR).weights] * ranks


def _losses(ranks: int, seed: int) -> list[float]:
    return train(build((IN, 8, OUT), seed, torch.float64), _whole(ranks, seed), torch.optim.SGD, lr=LR).losses


def notes(ranks: int, seed: int) -> str:
    """The losses of one process on the same batches."""
    losses = ", ".join(f"{each:.4g}" for each in _losses(ranks, seed))
    return f"One process, the tokens of all ranks in one batch: loss {losses}"


def sign(chart: Chart) -> bool:
    """Ranks have unequal tokens, and the first loss is not the mean over all of them."""
    tokens = {chart.column(rank, "tokens")[0] for rank in range(chart.ranks)}
    return len(tokens) > 1 and abs(chart.column(0, "loss")[0] - _losses(chart.ranks, chart.seed)[0]) > 1e-6


CASE = Case(
    number=9,
    title="On one GPU the loss is lower",
    complaint=(
        "We read real documents now. Same seed, same tokens per step. The loss is not the same on one GPU and on four, "
        "from the first step on; on one it is soon the lower, and the gap grows. Nothing is wrong with the ranks: they "
        "agree on every weight."
    ),
    cause="unweighted mean",
    evidence=(
        "the ranks report 2 to 4, 32, 40 and 48 tokens, and the loss of the log is the mean of four means; the sum of "
        "all losses by the sum of all tokens is what one process reports."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(alike(), one_process("Compare the gradient of the first step with that of one process.")),
    sign=sign,
    oracle=oracle,
    notes=notes,
    also=(2, 3),
)
