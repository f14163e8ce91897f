"""The task of chapter 13 on pruning: a model that is pruned and trained on, and what one process makes of it.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.drivers import batches, copies, from_rank_0, model_of
from parallel_lab.grading.expect import each_rank
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case
from parallel_lab.model.mlp import MLP

E = 8  # bytes of a number
RETURNED, WEIGHT, BIAS = "what it returned", "the weight of linear", "the bias of linear"
MODULE = "a module"


def given(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """As `drivers.batches`; the first weight is doubled, so that layers lose different shares to one threshold."""
    inputs, targets, weights = batches(case, rank, generator)
    return inputs, targets, [2 * weights[0], *weights[1:]]


def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay: both move a weight whose gradient is zero."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.02)


def prune(fn: Callable, case: Case, xs: list, ys: list, weights: list) -> dict:
    """`fn(model, sparsity, batches, make_optimizer, structured)`, the same model on every rank; what it returned."""
    model, pairs = model_of(case, from_rank_0(weights)), list(zip(xs, ys, strict=True))
    return _seen(fn(model, case["sparsity"], pairs, make_optimizer, case["structured"]))


def _seen(model: Any) -> dict:
    if not isinstance(model, nn.Module):
        return {RETURNED: type(model).__name__}
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    weights, biases = (copies(getattr(each, name) for each in linears) for name in ("weight", "bias"))
    return {RETURNED: MODULE, WEIGHT: weights, BIAS: biases}


def whole(outcome: Outcome) -> list[dict]:
    """Of `prune`: one process with all ranks' batches.

    Usual mistakes are settings: `scope="layer"`, a threshold for each; `biases`, counted and pruned; `zeros` that hold
    at the "start" only, or at the "ends" only; `untrained`.
    """
    case, weights = outcome.case, outcome.inputs[0][2]
    model, zeros = model_of(case, weights), case.get("zeros", "always")
    masks = {} if case["structured"] else _masks(case, model)
    if case["structured"]:
        _cut(model, case["sparsity"])
    pairs = zip(*(zip(*inputs[:2], strict=True) for inputs in outcome.inputs), strict=True)
    _apply(masks)
    _train(model, [] if case.get("untrained") else list(pairs), masks if zeros == "always" else {})
    if zeros == "ends":
        _apply(masks)
    return [_seen(model)] * outcome.ranks


def _train(model: MLP, pairs: list, masks: dict[nn.Parameter, Tensor]) -> None:
    optimizer = make_optimizer(model.parameters())
    for of_ranks in pairs:
        x, y = (torch.cat(each) for each in zip(*of_ranks, strict=True))
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        _apply(masks)


def _masks(case: Case, model: MLP) -> dict[nn.Parameter, Tensor]:
    """For each pruned parameter what stays."""
    pruned = [p for p in model.parameters() if p.dim() > 1 or case.get("biases")]
    groups = [[p] for p in pruned] if case.get("scope") == "layer" else [pruned]
    masks = {}
    for group in groups:
        sizes = torch.cat([p.detach().abs().flatten() for p in group])
        stays = torch.ones_like(sizes, dtype=torch.bool)
        stays[sizes.argsort()[: round(case["sparsity"] * len(sizes))]] = False
        parts = stays.split([p.numel() for p in group])
        masks |= {p: part.view_as(p) for p, part in zip(group, parts, strict=True)}
    return masks


@torch.no_grad()
def _apply(masks: dict[nn.Parameter, Tensor]) -> None:
    for parameter, mask in masks.items():
        parameter.mul_(mask)


def _cut(model: MLP, sparsity: float) -> None:
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    hidden = list(pairwise(linears))
    scores = [up.weight.detach().norm(dim=1) * down.weight.detach().norm(dim=0) for up, down in hidden]
    for (up, down), score in zip(hidden, scores, strict=True):
        stays = score.argsort(descending=True)[: round((1 - sparsity) * len(score))].sort().values
        up.weight, up.bias = nn.Parameter(up.weight.detach()[stays]), nn.Parameter(up.bias.detach()[stays])
        down.weight = nn.Parameter(down.weight.detach()[:, stays])


@each_rank
def zeros_stay(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """What was pruned is zero after the last step."""
    pairs = zip(outcome.results[rank].get(WEIGHT, []), outcome.expected[rank][WEIGHT], strict=False)
    fit = [(got[right == 0], right) for got, right in pairs if got is not None and got.shape == right.shape]
    gone, moved = sum(len(got) for got, _ in fit), sum(int(got.count_nonzero()) for got, _ in fit)
    if moved:
        steps = len(outcome.inputs[rank][0])
        seen = f"{where}, after {steps} step{'s' * (steps > 1)}: {moved} of {gone} pruned weights are not zero"
        raise Wrong(seen, advice)
