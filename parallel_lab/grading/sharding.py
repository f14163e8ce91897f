"""Inside a rank in the later tasks of chapter 06: accumulation, prefetch, and shards within a node.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.grading.drivers import LR, Moments, copies, from_rank_0, mark, model_of, watched
from parallel_lab.grading.rank_side import REDUCING, Case, change_first_arrival
from parallel_lab.grading.workers import Gradient, make_weights, regression
from parallel_lab.runtime.rank.backend import LabGroup

LOOKS = 50  # at what is held, before it counts
FORWARD, BACKWARD = "layer_forward", "layer_backward"  # what marks a layer's computing


def accumulate(fn: Callable, case: Case, xs, ys, weights) -> dict:
    """`fn(model, batches, lr, reduce_each)` for each step; a step has `microbatches` of this rank's batches.

    The result's `held` has [moment, layer, bytes] of each look at what is held beside parameters and batches.
    """
    note, begun = Moments(case, seen := {}, LOOKS), []

    def begins(*_: Any) -> None:
        begun.append(1)
        if len(begun) % case["microbatches"] != 1 % case["microbatches"]:
            note("between")

    model = watched(model_of(case, from_rank_0(weights)), note)
    model.register_forward_pre_hook(begins)
    note.begin()
    change_first_arrival(case, REDUCING)
    for step in range(case["batches"] // case["microbatches"]):
        of_step = slice(step * case["microbatches"], (step + 1) * case["microbatches"])
        note("step")
        fn(model, list(zip(xs[of_step], ys[of_step], strict=True)), LR, case["reduce_each"])
        note("step_over")
        seen[f"after step {step}: parameter"] = copies(model.parameters())
        seen[f"after step {step}: whether a gradient is left"] = any(_left(p) for p in model.parameters())
        model.zero_grad()
    return seen | {"held": note.samples}


def _left(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


class Layer:
    """One layer of a chain, tanh(weight x + bias): it computes with the flat parameters given to it, and keeps none.

    Both ways overlook what lies in `flat` behind its parameters, which is padding.
    """

    def __init__(self, part: int, width: int, out: int, note: Callable[[str, int], None] = lambda kind, part: None):
        self.part, self.width, self.out, self.note = part, width, out, note
        self.size = out * (width + 1)

    def forward(self, flat: Tensor, x: Tensor) -> Tensor:
        """The output (rows, out) for the input `x` (rows, width)."""
        self.note(FORWARD, self.part)
        return self._computed(flat, x)[0]

    def backward(self, flat: Tensor, x: Tensor, of_output: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of `x` and of `flat`, from that of the output; zero where `flat` is padding."""
        self.note(BACKWARD, self.part)
        output, weight = self._computed(flat, x)
        of_sum = of_output * (1 - output**2)
        of_flat = torch.zeros_like(flat)
        of_flat[: weight.numel()] = (of_sum.T @ x).flatten()
        of_flat[weight.numel() : self.size] = of_sum.sum(0)
        return of_sum @ weight, of_flat

    def _computed(self, flat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if flat.numel() < self.size:
            raise ValueError(f"layer {self.part} has {self.size} parameters, and was given {flat.numel()}")
        weight = flat[: self.out * self.width].view(self.out, self.width)
        return torch.tanh(x @ weight.T + flat[weight.numel() : self.size]), weight


def chain(case: Case, note: Callable[[str, int], None] = lambda kind, part: None) -> list[Layer]:
    """The layers of a chain of `widths`."""
    return [
        Layer(part, *sizes, note) for part, sizes in enumerate(zip(case["widths"], case["widths"][1:], strict=False))
    ]


def shards_of(layers: list[Layer], weights: list[Tensor], ranks: int, rank: int) -> list[Tensor]:
    """One rank's part of each layer: weight and bias end to end, padded with zeros to `ranks` equal parts."""
    shards = []
    for layer, weight, bias in zip(layers, weights[::2], weights[1::2], strict=True):
        flat = torch.cat([weight.flatten(), bias])
        shards.append(nn.functional.pad(flat, (0, -layer.size % ranks)).chunk(ranks)[rank].clone())
    return shards


def prefetch(fn: Callable, case: Case, xs, ys, weights) -> dict:
    """`fn(layers, shards, x, gradient_of_loss)` for each batch; the loss is half the sum of the squared errors."""
    note = Moments(case, seen := {}, LOOKS)
    layers = chain(case, note)
    shards = shards_of(layers, from_rank_0(weights), dist.get_world_size(), dist.get_rank())
    note.begin()
    change_first_arrival(case)
    for step, (x, y) in enumerate(zip(xs, ys, strict=True)):
        seen[f"step {step}: output"] = []
        mark("step")
        parts = fn(layers, shards, x, functools.partial(_gradient_of_loss, seen, f"step {step}: output", y))
        mark("step_over")
        seen[f"step {step}: its part of the gradient of layer"] = parts
    return seen | {"held": note.samples}


def _gradient_of_loss(seen: dict, name: str, y: Tensor, output: Tensor) -> Tensor:
    seen[name] = copies([output])
    return output - y


def batches_of_steps(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's own batches of a linear regression, one per step."""
    return regression(
        replace(case, settings=(*case.settings, ("counts", (case["steps"],) * case.ranks))), rank, generator
    )


def train_in_nodes(fn: Callable, case: Case, inputs: Tensor, targets: Tensor) -> dict:
    """`fn(shard, gradient, steps, lr, per_node)`: equal shards within a node, the same ones in each node.

    The result's `groups` has the members of each process group that this rank used.
    """
    gradient, groups, own_way = Gradient(case, inputs, targets), {}, LabGroup._collective

    def watched_way(group: LabGroup, *arguments: Any) -> Any:
        groups[group.label] = list(group.ranks)
        return own_way(group, *arguments)

    LabGroup._collective = watched_way  # pyright: ignore[reportAttributeAccessIssue]
    change_first_arrival(case, REDUCING)
    shard = make_weights(case["width"]).chunk(case["per_node"])[dist.get_rank() % case["per_node"]].clone()
    result = fn(shard, gradient, case["steps"], case["lr"], case["per_node"])
    return {
        "its batches": gradient.batches,
        "the weights at its gradient": gradient.weights,
        "the shard that it returned": result,
        "groups": groups,
    }
