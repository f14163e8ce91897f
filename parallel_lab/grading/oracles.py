"""What is expected of each rank, computed in the kernel in one process, by the names that the drivers use."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.drivers import LR, copies, model_of, stepped
from parallel_lab.grading.halves import layers_of
from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.sharding import chain, shards_of
from parallel_lab.grading.workers import gradient_at, make_weights
from parallel_lab.model import reference


def _steps(outcome: Outcome) -> Iterator[tuple[list, ...]]:
    """SGD from rank 0's weights with the ranks' mean gradient: inputs and outputs by rank, gradients, weights.

    With `only`, the gradient is that rank's own.
    """
    model, only = model_of(outcome.case, outcome.inputs[0][2]), outcome.case.get("only")
    for step in range(outcome.case["batches"]):
        inputs = [xs[step].clone().requires_grad_() for xs, _, _ in outcome.inputs]
        outputs = [model(x) for x in inputs]
        losses = [F.mse_loss(output, ys[step]) for output, (_, ys, _) in zip(outputs, outcome.inputs, strict=True)]
        model.zero_grad()
        torch.stack(losses if only is None else losses[only : only + 1]).mean().backward()
        torch.optim.SGD(model.parameters(), LR).step()
        yield inputs, outputs, [p.grad for p in model.parameters()], copies(model.parameters())


def data_parallel(outcome: Outcome) -> list:
    """Of `train_ddp`."""
    right: dict = {"after bucketed_ddp(): parameter": outcome.inputs[0][2]}
    for step, (_, _, gradients, after) in enumerate(_steps(outcome)):
        right |= {f"step {step}: the gradient of parameter": gradients, "at the end: parameter": after}
    return [right] * outcome.ranks


def sharded_layers(outcome: Outcome) -> list:
    """Of `train_layers`: each rank's outputs, and its parts of the layers, of their mean gradient and of the steps."""
    ranks = range(outcome.ranks)
    right: list[dict] = [{"parameters(): the shard of layer": _parts(outcome.inputs[0][2], outcome)[r]} for r in ranks]
    for step, (inputs, outputs, gradients, after) in enumerate(_steps(outcome)):
        for rank, own in enumerate(right):
            own[f"step {step}: output"] = [outputs[rank].detach()]
            grad = inputs[rank].grad
            own[f"step {step}: the gradient of the input"] = [torch.zeros(1) if grad is None else outcome.ranks * grad]
            own[f"step {step}: the gradient of the shard of layer"] = _parts(gradients, outcome)[rank]
            own[f"step {step}: the updated shard of layer"] = _parts(after, outcome)[rank]
    return right


def _parts(tensors: list[Tensor], outcome: Outcome) -> list[list[Tensor]]:
    """For each rank its part of each layer: weight and bias end to end, padded with zeros to equal parts."""
    layers = [torch.cat([weight.flatten(), bias]) for weight, bias in zip(tensors[::2], tensors[1::2], strict=True)]
    padded = [F.pad(layer, (0, -len(layer) % outcome.ranks)).chunk(outcome.ranks) for layer in layers]
    return [list(parts) for parts in zip(*padded, strict=True)]


def whole_batches(outcome: Outcome) -> list:
    """Of `train_framework`: training on the whole batches in one process; rank 0 alone writes a checkpoint."""
    xs, ys, weights = outcome.inputs[0]
    options, first = dict(outcome.case["options"]), outcome.case.get("resumed_at", 0)
    cut = [data[: options["steps"] * options["batch"]].split(options["batch"]) for data in (xs[0], ys[0].argmax(1))]
    model, optimizer = model_of(outcome.case, weights), torch.optim.SGD
    whole = reference.train(model, zip(*cut, strict=True), optimizer, loss=F.cross_entropy, lr=LR, momentum=0.9)
    right = {"the loss of step": whole.losses[first:], "after the last step: parameter": list(whole.weights.values())}
    if not first:
        return [right] * outcome.ranks
    before = {"before the checkpoint: the loss of step": whole.losses[:first], "the files on its disk": []}
    return [before | {"the files on its disk": ["checkpoint.pt"]} | right] + [before | right] * (outcome.ranks - 1)


def one_optimizer(outcome: Outcome) -> list:
    """Of `step_optimizer`: what torch's own optimizer does in one process."""
    optimizer_class, options = outcome.case["optimizer"]
    values, gradients = outcome.inputs[0]
    parameters = [nn.Parameter(value.clone()) for value in values]
    optimizer = optimizer_class(parameters, **dict(options))
    return [stepped(optimizer, parameters, gradients, note=lambda kind: None)] * outcome.ranks


def local_steps(outcome: Outcome) -> list:
    """Local SGD in one process. Its `share` of a rank's steps, all of them, is its weight in the average of a round."""
    case = outcome.case
    counts, every, share = case["counts"], case["every"], case.get("share", float)
    weights = [make_weights(case["width"]) for _ in counts]
    seen: list[list[Tensor]] = [[] for _ in counts]
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
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
            "its batches": list(range(count)),
            "the weights that it returned": last,
            "the weights at its gradient": asked_at,
        }
        for count, last, asked_at in zip(counts, weights, seen, strict=True)
    ]


def accumulated(outcome: Outcome) -> list:
    """Of `accumulate`: a step is one of SGD with the mean gradient of all microbatches of all ranks."""
    case, right = outcome.case, {}
    model, only, count = model_of(case, outcome.inputs[0][2]), case.get("only"), case["microbatches"]
    ranks = outcome.inputs if only is None else outcome.inputs[only : only + 1]
    for step in range(case["batches"] // count):
        of_step = range(step * count, (step + 1) * count)
        model.zero_grad()
        torch.stack([F.mse_loss(model(xs[k]), ys[k]) for xs, ys, _ in ranks for k in of_step]).mean().backward()
        torch.optim.SGD(model.parameters(), LR).step()
        right[f"after step {step}: parameter"] = copies(model.parameters())
        right[f"after step {step}: whether a gradient is left"] = False
    return [right] * outcome.ranks


def chained(outcome: Outcome) -> list:
    """Of `prefetch`: each rank's outputs, and its part of the mean gradient of each layer."""
    layers, n, only = chain(outcome.case), outcome.ranks, outcome.case.get("only")
    weights, right = outcome.inputs[0][2], [{} for _ in range(n)]
    for step in range(outcome.case["batches"]):
        total = [torch.zeros(layer.size, dtype=weights[0].dtype) for layer in layers]
        for rank, (xs, ys, _) in enumerate(outcome.inputs):
            outputs = [xs[step]]
            flats = shards_of(layers, weights, 1, 0)
            for layer, flat in zip(layers, flats, strict=True):
                outputs.append(layer.forward(flat, outputs[-1]))
            right[rank][f"step {step}: output"] = [outputs[-1]]
            of_output = outputs[-1] - ys[step]
            for layer in reversed(layers):
                of_output, of_flat = layer.backward(flats[layer.part], outputs[layer.part], of_output)
                total[layer.part] += of_flat * (1 / n if only is None else rank == only)
        for rank in range(n):
            parts = [F.pad(flat, (0, -len(flat) % n)).chunk(n)[rank] for flat in total]
            right[rank][f"step {step}: its part of the gradient of layer"] = parts
    return right


def in_nodes(outcome: Outcome) -> list:
    """Of `train_in_nodes`: SGD with the mean gradient of all ranks.

    `alone` is the usual mistake to take the mean of a node only, `divisor` another number to divide by.
    """
    case, n, per_node = outcome.case, outcome.ranks, outcome.case["per_node"]
    right = []
    for node in range(n // per_node):
        weights, seen = make_weights(case["width"]), []
        members = outcome.inputs[node * per_node : (node + 1) * per_node] if case.get("alone") else outcome.inputs
        for batch in range(case["steps"]):
            seen.append(weights)
            total = torch.stack([gradient_at(xs[batch], ys[batch], weights) for xs, ys in members]).sum(0)
            weights = weights - case["lr"] * total / case.get("divisor", len(members))
        right += [
            {
                "its batches": list(range(case["steps"])),
                "the weights at its gradient": seen,
                "the shard that it returned": shard,
            }
            for shard in weights.chunk(per_node)
        ]
    return right


def split_over_two(outcome: Outcome) -> list:
    """Of `split_steps`: SGD in one process; each rank has the gradients of its own layers, rank 1 the loss."""
    case, (xs, ys, weights) = outcome.case, outcome.inputs[0]
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    right: list[dict] = [{}, {}]
    for k, (x, y) in enumerate(zip(xs, ys, strict=True)):
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            x = torch.tanh(F.linear(x, weight, bias))
        loss = F.mse_loss(x, y)
        right[1][f"step {k}: its loss"] = loss.item()
        if case.get("graded") == "loss":
            continue
        gradients = torch.autograd.grad(loss, parameters)
        for rank, own in enumerate(right):
            for i in layers_of(case, rank):
                own[f"step {k}: layer {i}'s gradient of weight"] = gradients[2 * i]
                own[f"step {k}: layer {i}'s gradient of bias"] = gradients[2 * i + 1]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.data.sub_(gradient, alpha=LR)
    return right
