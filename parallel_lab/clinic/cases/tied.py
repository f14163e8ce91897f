"""Case 5: a weight that stands in two stages, and a norm over both."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportOptionalMemberAccess=false

from collections.abc import Sequence
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Report, Samples
from parallel_lab.clinic.job import CLIPPED, Case, States, one_process, reports

VOCAB, WIDTH, COUNT, BATCH, LR, LIMIT = 10, 6, 192, 24, 1.0, 0.1


class Stage(nn.Module):
    """One of two stages: `shared` is the embedding of the first and the head of the second."""

    def __init__(self, shared: Tensor, weight: Tensor, first: bool) -> None:
        super().__init__()
        self.shared, self.weight, self.first = nn.Parameter(shared.clone()), nn.Parameter(weight.clone()), first

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to hidden in the first stage, hidden to logits in the second."""
        return (self.shared[x] @ self.weight).tanh() if self.first else (x @ self.weight).tanh() @ self.shared.T


def job(stage: Stage, samples: Samples, report: Report) -> Stage:
    """A pipeline of two stages; the gradients of the shared weight are added up, then all gradients are clipped."""
    params, optimizer = list(stage.parameters()), torch.optim.SGD(stage.parameters(), lr=1.0)
    for batch in torch.arange(len(samples)).split(24):
        tokens, targets = samples[batch]
        optimizer.zero_grad()
        if stage.first:
            hidden = stage(tokens)
            back = torch.empty_like(hidden)
            dist.send(hidden.detach(), 1)
            dist.recv(back, 1)
            hidden.backward(back)
        else:
            hidden = torch.empty(len(batch), 6, dtype=torch.float64)
            dist.recv(hidden, 0)
            nn.functional.cross_entropy(stage(hidden.requires_grad_()), targets).backward()
            dist.send(hidden.grad, 0)
        dist.all_reduce(stage.shared.grad)
        squares = sum(p.grad.square().sum() for p in params)
        dist.all_reduce(squares)
        for p in params:
            p.grad *= min(1.0, 0.1 / squares.sqrt())
        optimizer.step()
        report(norm=squares.sqrt())
    return stage


def mended(stage: Stage, samples: Samples, report: Report) -> Stage:
    """Counts the shared weight in the first stage only."""
    params, optimizer = list(stage.parameters()), torch.optim.SGD(stage.parameters(), lr=1.0)
    counted = params if stage.first else [stage.weight]
    for batch in torch.arange(len(samples)).split(24):
        tokens, targets = samples[batch]
        optimizer.zero_grad()
        if stage.first:
            hidden = stage(tokens)
            back = torch.empty_like(hidden)
            dist.send(hidden.detach(), 1)
            dist.recv(back, 1)
            hidden.backward(back)
        else:
            hidden = torch.empty(len(batch), 6, dtype=torch.float64)
            dist.recv(hidden, 0)
            nn.functional.cross_entropy(stage(hidden.requires_grad_()), targets).backward()
            dist.send(hidden.grad, 0)
        dist.all_reduce(stage.shared.grad)
        squares = sum(p.grad.square().sum() for p in counted)
        dist.all_reduce(squares)
        for p in params:
            p.grad *= min(1.0, 0.1 / squares.sqrt())
        optimizer.step()
        report(norm=squares.sqrt())
    return stage


def given(rank: int, ranks: int, seed: int) -> tuple:
    """This rank's stage, and the tokens with their targets."""
    shared, first, second = _weights(seed)
    return Stage(shared, second if rank else first, rank == 0), Samples(*_tokens(seed))


def _weights(seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((VOCAB, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH))
    return [torch.randn(shape, generator=draw, dtype=torch.float64) / 2 for shape in shapes]


def _tokens(seed: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(VOCAB, (COUNT,), generator=torch.Generator().manual_seed(seed))
    return tokens, (tokens * 3 + 1) % VOCAB


@cache
def _one_process(seed: int) -> tuple[list[float], dict[str, Tensor]]:
    """The norms of each step, and the weights after the last."""
    shared, first, second = params = [nn.Parameter(weight) for weight in _weights(seed)]
    optimizer, norms = torch.optim.SGD(params, lr=LR), []
    tokens, targets = _tokens(seed)
    for batch in torch.arange(COUNT).split(BATCH):
        optimizer.zero_grad()
        logits = ((shared[tokens[batch]] @ first).tanh() @ second).tanh() @ shared.T
        nn.functional.cross_entropy(logits, targets[batch]).backward()
        norm = sum(p.grad.square().sum() for p in params).sqrt()
        for p in params:
            p.grad *= min(1.0, LIMIT / norm)
        norms.append(norm.item())
        optimizer.step()
    return norms, {"shared": shared.detach(), "first": first.detach(), "second": second.detach()}


def norms_of(ranks: int, seed: int) -> Sequence[float]:
    """The norm of each step in one process."""
    return _one_process(seed)[0]


def oracle(ranks: int, seed: int) -> States:
    """The weights of one process, as the two stages have them."""
    weights = _one_process(seed)[1]
    return [{"shared": weights["shared"], "weight": weights[name]} for name in ("first", "second")]


def notes(ranks: int, seed: int) -> str:
    """The norms of one process."""
    return "One process, the same batches: norm " + ", ".join(f"{each:.4g}" for each in norms_of(ranks, seed))


def sign(chart: Chart) -> bool:
    """The norm of the first step, where all weights are still the same, is larger than that of one process."""
    return chart.column(0, "norm")[0] > 1.05 * norms_of(chart.ranks, chart.seed)[0]


CASE = Case(
    number=5,
    title="The pipeline learns a little more slowly",
    complaint=(
        "We cut the model into two stages; embedding and head share their weight, as before, and its two gradients are "
        "added up. It trains, without a spike or a NaN, but behind the curve of the single GPU. A colleague says that "
        "pipelines cost some accuracy."
    ),
    cause="norm counted twice",
    evidence=(
        "the norm of the first step is too large although the weights are still those of one process. Its square is "
        "too large by the square of the shared weight's gradient, which both stages add. All gradients are then "
        "clipped too far."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(
        reports("norm", norms_of, "What is in the sum of squares, and how often?", close=CLIPPED),
        one_process(
            "Compare the first step with that of one process: which gradients differ, and by which factor?",
            close=CLIPPED,
        ),
    ),
    sign=sign,
    oracle=oracle,
    notes=notes,
    ranks=2,
)
