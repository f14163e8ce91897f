"""The tasks of chapter 18: metrics and losses over ranks that hold different numbers of samples, and of other classes.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module, so it computes
in plain torch what is right, from all ranks' inputs, and what the usual mistakes come to.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from parallel_lab.grading.drivers import from_rank_0, mark
from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.rank_side import Case, change_first_arrival, name

CALL = ("call", "call_over")  # the driver's marks round each call
IGNORED = -100
COUNTS, F1, AUC = "the counts", "f1", "auc"
PERPLEXITY, GRADIENT, LOSS = "the perplexity", "the gradient after DDP's average", "the loss after the same average"


def skewed(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Labels, predictions and scores of `sizes[rank]` samples; each rank has mostly other classes.

    The rank `lacking` has none of class 1, others with samples have. The last class is in no label and in no
    prediction, the one before it in predictions only. Scores are tenths, so that many tie, and another rank's lie at
    another height.
    """
    samples, classes = case["sizes"][rank % len(case["sizes"])], case["classes"]
    odds = torch.rand(classes - 2, generator=generator) ** 2 + 0.05
    odds[rank % (classes - 2)] += 2
    odds[1] = 0 if rank == case.get("lacking") else odds[1] + 0.3
    labels = torch.multinomial(odds, samples, replacement=True, generator=generator) if samples else _none()
    labels[: int(bool(odds[1]))] = 1
    wrong = torch.randint(classes - 1, (samples,), generator=generator)
    right = torch.rand(samples, generator=generator) < 0.4 + 0.5 * torch.rand(1, generator=generator)
    noise = torch.rand(samples, generator=generator, dtype=torch.float64)
    scores = (6 * noise + 3 * (labels == 1) + rank % 3).round() / 10
    return labels, torch.where(right, labels, wrong), scores


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


def score(fn: Callable, case: Case, labels: Tensor, predictions: Tensor, scores: Tensor) -> dict:
    """`fn(labels, predictions, scores, classes)`; scores are None where the case does not ask for the AUC."""
    change_first_arrival(case)
    mark(CALL[0])
    got = fn(labels, predictions, scores if AUC in case["asks"] else None, case["classes"])
    mark(CALL[1])
    return {what: _item(got, what.split()[-1]) for what in case["asks"]}


def _item(got: object, key: str) -> object:
    if not isinstance(got, dict) or key not in got:
        raise TypeError(f"the function returned {name(got)}: expected a dict with {key!r}")
    value = got[key]
    return value if key == "counts" else _number(value, key)


def _number(value: object, what: str) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is {name(value)}: expected a number")
    return float(value)


def scored(outcome: Outcome) -> list[dict]:
    """What every rank should return; with the setting `mistake`, what a usual mistake comes to."""
    case, ranks = outcome.case, outcome.inputs
    if (only := case.get("only")) is not None:
        ranks = ranks[only : only + 1]
    labels, predictions, scores = (torch.cat(each) for each in zip(*ranks, strict=True))
    counts = confusion(labels, predictions, case["classes"])
    right = {COUNTS: counts, F1: _f1s(case, ranks, counts), AUC: _aucs(case, ranks, labels, scores)}
    return [{what: right[what] for what in case["asks"]}] * outcome.ranks


def confusion(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """counts[i, j]: how many of class i were called j."""
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    return counts.index_put_((labels, predictions), torch.ones_like(labels), accumulate=True)


def macro_f1(counts: Tensor, absent: bool = False) -> float:
    """The mean over the classes that occur; with `absent` over all, one that does not occur counting 0."""
    occurs = (counts.sum(0) + counts.sum(1)).double()
    each = 2 * counts.diagonal() / occurs.clamp(min=1)
    return float(each.mean() if absent else each[occurs > 0].mean()) if bool(occurs.any()) else 0.0


def _f1s(case: Case, ranks: list[tuple], counts: Tensor) -> float:
    if case.get("mistake") == "absent":
        return macro_f1(counts, absent=True)
    return _mistaken(case, ranks, lambda rank: macro_f1(confusion(rank[0], rank[1], case["classes"])), macro_f1(counts))


def _mistaken(case: Case, ranks: list[tuple], of: Callable[[tuple], float], right: float) -> float:
    """`right`, or what a mistake makes of each rank's value."""
    weights = {
        "mean": lambda rank: 1,
        "samples": lambda rank: len(rank[0]),
        "pairs": lambda rank: int((rank[0] == 1).sum() * (rank[0] != 1).sum()),
    }.get(case.get("mistake", ""))
    if weights is None:
        return right
    weighted = [(weights(rank), of(rank)) for rank in ranks]
    return sum(weight * value for weight, value in weighted) / (sum(weight for weight, _ in weighted) or 1)


def area(labels: Tensor, scores: Tensor, tie: float = 0.5) -> float:
    """Over all pairs of a sample of class 1 and another, how often the first scores higher; a tie counts `tie`."""
    ones, others = scores[labels == 1, None], scores[None, labels != 1]
    if not ones.numel() or not others.numel():
        return 0.0
    return float(((ones > others).double() + tie * (ones == others)).mean())


def _aucs(case: Case, ranks: list[tuple], labels: Tensor, scores: Tensor) -> float:
    ties = {"lost": 0.0, "won": 1.0}
    if case.get("mistake") in ties:
        return area(labels, scores, ties[case["mistake"]])
    return _mistaken(case, ranks, lambda rank: area(rank[0], rank[2]), area(labels, scores))


def tokens(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Inputs (rows, seq, width), targets (rows, seq) of which many are padding, and a weight (width, vocab).

    `counts[rank]` targets count. The weight is rank 0's on all ranks, and other ranks' inputs are larger.
    """
    seq, width, vocab, count = case["seq"], case["width"], case["vocab"], case["counts"][rank]
    rows = -(-count // seq) + rank % 2
    inputs = torch.randn(rows, seq, width, generator=generator, dtype=torch.float64) * (1 + rank)
    targets = torch.full((rows * seq,), IGNORED)
    places = torch.randperm(rows * seq, generator=generator)[:count]
    targets[places] = torch.randint(vocab, (count,), generator=generator)
    return inputs, targets.view(rows, seq), torch.randn(width, vocab, generator=generator, dtype=torch.float64) / 4


def evaluate(fn: Callable, case: Case, inputs: Tensor, targets: Tensor, weight: Tensor) -> dict:
    """`fn(logits, targets)`; then the backward of the loss that it returned, and the mean over ranks."""
    (weight,) = from_rank_0([weight])
    weight.requires_grad_()
    change_first_arrival(case)
    mark(CALL[0])
    got = fn(inputs @ weight, targets)
    mark(CALL[1])
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise TypeError(f"the function returned {name(got)}: expected (perplexity, loss)")
    seen = {PERPLEXITY: _number(got[0], "the perplexity")}
    if GRADIENT not in case["asks"]:
        return seen
    if not isinstance(got[1], Tensor) or got[1].dim() or not got[1].requires_grad:
        raise TypeError(f"the loss is {name(got[1])}: expected a scalar tensor made of the logits, for backward()")
    got[1].backward()
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    loss = got[1].detach().double()
    for each in (gradient, loss):
        dist.all_reduce(each)
    n = dist.get_world_size()
    return seen | {GRADIENT: gradient / n, LOSS: loss.item() / n}


def evaluated(outcome: Outcome) -> list[dict]:
    """What every rank should see; with the setting `mistake`, what a usual mistake comes to."""
    case, weight = outcome.case, outcome.inputs[0][2].clone().requires_grad_()
    sums = [_nats(inputs @ weight, targets, case) for inputs, targets, _ in outcome.inputs]
    if (only := case.get("only")) is not None:
        sums = sums[only : only + 1]
    nats = torch.stack([nats for nats, _ in sums])
    counts = torch.tensor([count for _, count in sums])
    means, mean = nats / counts.clamp(min=1), nats.sum() / counts.sum().clamp(min=1)
    loss = {"losses": means.mean(), "unscaled": mean / len(sums)}.get(case.get("mistake", ""), mean)
    value = means.exp().mean() if case.get("mistake") == "perplexities" else loss.exp()
    found: dict = {PERPLEXITY: value.item()}
    if GRADIENT in case["asks"]:
        found |= {GRADIENT: torch.autograd.grad(loss, weight)[0], LOSS: loss.item()}
    return [found] * outcome.ranks


def _nats(logits: Tensor, targets: Tensor, case: Case) -> tuple[Tensor, int]:
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    padding = case.get("mistake") == "padding"
    return nats, targets.numel() if padding else int((targets != IGNORED).sum())
