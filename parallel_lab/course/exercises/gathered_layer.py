"""Chapter 06: a layer whose parameters are cut over the ranks, gathered for use and freed after it.

Rajbhandari et al. 2020, "ZeRO", section 5.3; Zhao et al. 2023, "PyTorch FSDP", section 3.2.

A rank keeps 1/n of the layer. Forward gathers, computes, frees; backward gathers again, computes, frees, and a
reduce-scatter leaves each rank its part of the mean gradient: 3 (n-1)/n of the parameters sent a step.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.course.driving import LR, network, train_layers
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.mechanism import forbid
from parallel_lab.course.training import Chain, load, silent
from parallel_lab.course.training_checks import (
    ITEM_BYTES,
    expect_held,
    expect_traffic,
    expect_used,
    gradients,
    same_tensors,
)

NARROW = (5, 7, 3)  # 42 and 24 parameters
ODD = (4, 5, 1)  # 25 and 6: divide not by 4
WIDE = (64,) * 6
ROWS = (3, 2, 4)
LAYER_BYTES = (64 * 64 + 64) * ITEM_BYTES
LAYERS = len(WIDE) - 1
# Autograd keeps each layer's input and tanh's output, and backward has a gradient or two more.
ACTIVATION_BYTES = 3 * LAYERS * max(ROWS) * 64 * ITEM_BYTES


def _run(fn: Callable, lab: Lab, ranks: int, widths=NARROW, garbled: bool = False) -> Outcome:
    limits = _limits(ranks) if widths == WIDE else {}
    driver = partial(train_layers, fn, widths=widths, limits=limits, garbled=garbled)
    return lab.run(driver, ranks, partial(network, widths=widths, rows=ROWS, steps=2), key=(widths, garbled))


def _limits(ranks: int) -> dict[str, float]:
    """Where a sample is taken -> the most bytes that may be held there."""
    shards = LAYERS * LAYER_BYTES / ranks + 2000
    return {
        "step": shards,
        "layer_forward": 2 * shards + 2 * LAYER_BYTES + ACTIVATION_BYTES,
        "between": shards + ACTIVATION_BYTES,
        "layer_backward": 2 * shards + 3 * LAYER_BYTES + ACTIVATION_BYTES,
        "step_over": 2 * shards + ACTIVATION_BYTES,
    }


def cut(parameters: Sequence[Tensor], ranks: int) -> list[Tensor]:
    """The parts of a layer: its parameters end to end, padded with zeros, in `ranks` equal parts."""
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    part = -(-len(flat) // ranks)
    return list(F.pad(flat, (0, part * ranks - len(flat))).split(part))


def _shards(tensors: Sequence[Tensor], ranks: int, rank: int) -> list[Tensor]:
    """Rank's part of each layer; `tensors` holds weight and bias of one layer after the other."""
    return [cut(tensors[k : k + 2], ranks)[rank] for k in range(0, len(tensors), 2)]


def _right(outcome: Outcome, widths=NARROW) -> None:
    model = load(Chain(widths, note=silent), outcome.inputs[0][2])
    parameters, ranks = list(model.parameters()), outcome.ranks
    advice = "parameters() has one flat tensor: rank r's part of weight and bias, end to end, padded to n equal parts."
    for rank, (built, _, _) in enumerate(outcome.results):
        where = f"{outcome.at}: rank {rank}, parameters()"
        same_tensors(built, _shards(parameters, ranks, rank), where, "the shard of layer", advice)
    for step in range(len(outcome.inputs[0][0])):
        outputs, of_inputs, mean = _oracle(model, [(xs[step], ys[step]) for xs, ys, _ in outcome.inputs])
        for rank, result in enumerate(outcome.results):
            output, of_input, of_shards, after = result[1][step]
            where = f"{outcome.at}: rank {rank}, step {step}"
            same_tensors(output, [outputs[rank]], where, "output")
            same_tensors(of_input, [of_inputs[rank]], where, "the gradient of the input")
            note = "The mean over ranks of the layer's gradient, and of it this rank's part."
            same_tensors(of_shards, _shards(mean, ranks, rank), where, "the gradient of the shard of layer", note)
            same_tensors(after, _shards(parameters, ranks, rank), where, "the updated shard of layer")


def _oracle(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> tuple[list, list, list]:
    """Outputs and gradients of the inputs, a rank each, and the mean gradient; steps `model`."""
    parameters, inputs = list(model.parameters()), [x.clone().requires_grad_() for x, _ in batches]
    outputs = [model(x) for x in inputs]
    losses = [F.mse_loss(output, y) for output, (_, y) in zip(outputs, batches, strict=True)]
    found = gradients(torch.stack(losses).sum(), [*inputs, *parameters])
    mean = [gradient / len(batches) for gradient in found[len(inputs) :]]
    with torch.no_grad():
        for p, gradient in zip(parameters, mean, strict=True):
            p -= LR * gradient
    return [output.detach() for output in outputs], found[: len(inputs)], mean


def numbers(fn: Callable, lab: Lab) -> None:
    """Outputs, gradients and two steps are those of one process, at 1 to 4 ranks."""
    for ranks, widths in ((1, NARROW), (2, NARROW), (3, NARROW), (4, WIDE)):
        _right(_run(fn, lab, ranks, widths), widths)


def uneven(fn: Callable, lab: Lab) -> None:
    """Sizes that do not divide by the number of ranks work."""
    _right(_run(fn, lab, 4, ODD), ODD)


def held(fn: Callable, lab: Lab) -> None:
    """A rank holds its shards, and a whole layer only while that layer computes."""
    outcome = _run(fn, lab, 4, WIDE)
    limits = _limits(outcome.ranks)
    for rank, (_, _, samples) in enumerate(outcome.results):
        if missing := [where for where in limits if where not in {sample[0] for sample in samples}]:
            seen = f"{outcome.at}: rank {rank}: the layer was never called ({missing[0]} missing)"
            raise Wrong(seen, "Compute with the layer that you were given.")
        for where, (moment, what, advice) in MOMENTS.items():
            for part, kept in (sample[1:] for sample in samples if sample[0] == where):
                expect_held(f"{outcome.at}: rank {rank} {moment.format(part)}", kept, limits[where], what, advice)


MOMENTS = {  # where a sample was taken -> in words, what is allowed, advice; the most telling first
    "step": (
        "between two steps",
        "its shards are",
        "The layer's own parameters, and what was gathered, must be gone: who still refers to them?",
    ),
    "between": (
        "after forward and before backward",
        "its shards and the activations are",
        "What autograd saves for backward counts too: it keeps the weight of a linear layer unless you prevent it.",
    ),
    "layer_forward": (
        "in the forward of layer {}",
        "shards, this layer and the activations are",
        "Gather a layer just before it computes, and free it before the next one.",
    ),
    "layer_backward": (
        "in the backward of layer {}",
        "shards, this layer, its gradients and the activations are",
        "Gather a layer again just before its backward, and free it before the next one.",
    ),
    "step_over": (
        "after backward",
        "its shards and their gradients are",
        "After the reduce-scatter nobody needs the whole gradient, nor the gathered layer.",
    ),
}


def traffic(fn: Callable, lab: Lab) -> None:
    """A step is two all-gathers and a reduce-scatter: 3 (n-1)/n of the parameters, and they carry the data."""
    outcome = _run(fn, lab, 4, WIDE)
    forbid(outcome, ("all_reduce",), "Each rank needs its own part of the mean gradient alone.")
    share = 3 * (outcome.ranks - 1) * LAYERS * LAYER_BYTES / outcome.ranks
    advice = "Gather once in forward and once in backward; the gradient needs one reduce-scatter."
    least = 2 / 3 * share - 100  # an answer that gathers once sends less, and `held` says why not
    expect_traffic(outcome, least, share + 100, "gather, gather and reduce-scatter send", advice)
    garbled = _run(fn, lab, 2, garbled=True)
    expect_used(garbled, lambda: _right(garbled))


EXERCISE = Exercise(
    name="gathered_layer",
    title="A sharded layer: gather, use, free (ZeRO-3)",
    level="hard",
    minutes=60,
    tests=(numbers, uneven, held, traffic),
    notebook="06_sharded_data_parallel",
)
