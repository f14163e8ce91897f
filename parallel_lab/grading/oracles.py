"""What is expected of each rank, computed in the kernel in one process, by the names that the drivers use."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.drivers import LR
from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.models import Chain, load, silent
from parallel_lab.grading.workers import gradient_at, make_weights

# Gradients, and weights after some steps, summed in another order: sums of some hundred float64 products, errors of
# 1e-14 and less; a wrong factor of 1.0001 is far outside.
TRAINED = 1e-10


def total(outcome: Outcome) -> list:
    """The sum of all ranks' tensors."""
    return [torch.stack([given[0] for given in outcome.inputs]).sum(0)] * outcome.ranks


def data_parallel(outcome: Outcome) -> list:
    """Of `train_ddp`: from rank 0's weights, steps with the mean over ranks of each rank's own gradient."""
    initial, case = outcome.inputs[0][2], outcome.case
    model = load(Chain(case["widths"], case["tied"], note=silent), initial)
    right: dict = {"after bucketed_ddp(): parameter": initial}
    for step in range(case["batches"]):
        losses = [F.mse_loss(model(xs[step]), ys[step]) for xs, ys, _ in outcome.inputs]
        right[f"step {step}: the gradient of parameter"] = _descend(model, torch.stack(losses).mean())
    return [right | {"at the end: parameter": [p.detach() for p in model.parameters()]}] * outcome.ranks


def _descend(model: nn.Module, loss: Tensor) -> list[Tensor | None]:
    """One step of SGD; returns the gradient of each parameter, None where it does not learn."""
    model.zero_grad()
    loss.backward()
    torch.optim.SGD(model.parameters(), LR).step()
    return [p.grad for p in model.parameters()]


def whole_batches(outcome: Outcome) -> list:
    """Of `train_framework`: training on the whole batches in one process; rank 0 alone writes a checkpoint."""
    xs, ys, weights = outcome.inputs[0]
    options, losses, first = dict(outcome.case["options"]), [], outcome.case.get("resumed_at", 0)
    model = load(Chain(outcome.case["widths"], note=silent), weights)
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9)
    for k in range(options["steps"]):
        rows = slice(k * options["batch"], (k + 1) * options["batch"])
        loss = F.cross_entropy(model(xs[0][rows]), ys[0][rows].argmax(1))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = [p.detach() for p in model.parameters()]
    right = {"the loss of step": losses[first:], "after the last step: parameter": after}
    if not first:
        return [right] * outcome.ranks
    files = [["checkpoint.pt"] if rank == 0 else [] for rank in range(outcome.ranks)]
    before = {"before the checkpoint: the loss of step": losses[:first]}
    return [before | {"the files on its disk": own} | right for own in files]


def one_optimizer(outcome: Outcome) -> list:
    """Of `step_optimizer`: what torch's own optimizer does in one process."""
    optimizer_class, options = outcome.case["optimizer"]
    values, gradients = outcome.inputs[0]
    parameters = [nn.Parameter(value.clone()) for value in values]
    optimizer, right = optimizer_class(parameters, **dict(options)), {}
    for number, step in enumerate(gradients):
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
        right[f"step {number}: whether zero_grad() left a gradient"] = False
        right[f"after step {number}: parameter"] = [p.detach().clone() for p in parameters]
    return [right] * outcome.ranks


def sharded_layers(outcome: Outcome) -> list:
    """Of `train_layers`: each rank's outputs, and its parts of the layers, of their mean gradient and of the steps."""
    model, ranks = load(Chain(outcome.case["widths"], note=silent), outcome.inputs[0][2]), outcome.ranks
    right: list[dict] = [{"parameters(): the shard of layer": part} for part in _parts(model.parameters(), ranks)]
    for step in range(outcome.case["batches"]):
        inputs = [xs[step].clone().requires_grad_() for xs, _, _ in outcome.inputs]
        outputs = [model(x) for x in inputs]
        losses = [F.mse_loss(out, ys[step]) for out, (_, ys, _) in zip(outputs, outcome.inputs, strict=True)]
        mean = _parts(_descend(model, torch.stack(losses).mean()), ranks)
        updated = _parts(model.parameters(), ranks)
        for rank, own in enumerate(right):
            own[f"step {step}: output"] = [outputs[rank].detach()]
            own[f"step {step}: the gradient of the input"] = [ranks * cast(Tensor, inputs[rank].grad)]
            own[f"step {step}: the gradient of the shard of layer"] = mean[rank]
            own[f"step {step}: the updated shard of layer"] = updated[rank]
    return right


def _parts(tensors, ranks: int) -> list[list[Tensor]]:
    """For each rank its part of each layer: weight and bias end to end, padded with zeros to equal parts."""
    tensors = [tensor.detach().clone() for tensor in tensors]
    flats = [torch.cat([w.flatten(), b.flatten()]) for w, b in zip(tensors[::2], tensors[1::2], strict=True)]
    padded = [F.pad(flat, (0, -len(flat) % ranks)).view(ranks, -1) for flat in flats]
    return [[layer[rank] for layer in padded] for rank in range(ranks)]


def blocks_for_me(outcome: Outcome) -> list:
    """Item i is the block that rank i had for this rank."""
    return [[given[0][rank] for given in outcome.inputs] for rank in range(outcome.ranks)]


def of_root(outcome: Outcome) -> list:
    """The root's tensor, everywhere."""
    return [outcome.inputs[outcome.case["root"]][0]] * outcome.ranks


def of_left_neighbor(outcome: Outcome) -> list:
    """What rank r - 1 had."""
    return [outcome.inputs[rank - 1][0] for rank in range(outcome.ranks)]


def local_steps(outcome: Outcome, every: float = 0, share: Callable[[int], float] = float) -> list:
    """Of `drive_local`: local SGD in one process. `share` of a rank's steps is its weight in the average of a round.

    With `every` and `share` other than the case's, it is one of the usual mistakes.
    """
    case = outcome.case
    counts, every = case["counts"], min(every or case["every"], max(case["counts"]))
    weights = [make_weights(case["width"]) for _ in counts]
    seen: list[list[Tensor]] = [[] for _ in counts]
    for first in range(0, max(counts), int(every)):
        steps = [max(0, min(int(every), count - first)) for count in counts]
        for rank, (inputs, targets) in enumerate(outcome.inputs):
            for batch in range(first, first + steps[rank]):
                seen[rank].append(weights[rank])
                gradient = gradient_at(inputs[batch], targets[batch], weights[rank])
                weights[rank] = weights[rank] - case["lr"] * gradient
        shares = torch.tensor([share(step) for step in steps], dtype=torch.float64)
        if shares.any():
            weights = [shares @ torch.stack(weights) / shares.sum()] * len(counts)
    return [
        {
            "the batches of its gradients": list(range(count)),
            "the weights that it returned": weights[rank],
            "the weights at its gradient": seen[rank],
        }
        for rank, count in enumerate(counts)
    ]
