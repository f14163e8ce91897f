"""One stage of a pipeline: its part of the model, and what it keeps of each microbatch between the passes.

A stage cuts autograd's graph at its two ends. F takes inputs as leaves and hands outputs on without their graph; the
backward passes start from where the outputs were made, with gradients that came from the next stage, and end at the
leaves. So a stage is the same whether its neighbors live on this rank or on others.

    F    runs the module, keeps the leaves and the ends of the graph
    B    gradients of inputs and weights, together
    I    those of the inputs; W those of the weights, later (`split.py`)

With `recompute` F keeps the inputs and the state of the random generators alone, and B or I runs the forward once more,
with the same dropout masks (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). Activations are held
for one microbatch at a time then, beside the inputs of all, and where the backward is split, until W. It is the stage
that runs the forward again, before autograd begins, so that it runs once, however many times autograd is called.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from parallel_lab.pipeline.split import Kept, backward_weights, has_matrices, weights_later
from parallel_lab.runtime.device import rank_device

Tensors = tuple[Tensor, ...]


@dataclass
class Flight:
    """What a stage keeps of one microbatch.

    Attributes:
        leaves: The inputs, where the backward passes end.
        run: The forward pass on these leaves.
        split: Whether its backward pass comes in two halves.
        roots: Where each output was made that wants a gradient.
        kept: What I leaves for W.
        dice: The states of the random generators before F, where the forward will be run again.
    """

    leaves: Tensors
    run: Callable[[], Tensors]
    split: bool
    roots: list[GradientEdge] = field(default_factory=list)
    kept: Kept = field(default_factory=list)
    dice: list[Tensor] = field(default_factory=list)


class Stage:
    """A module as a stage of a pipeline; `recompute` keeps only its inputs and runs the forward again.

    The module takes what the stage before returned, one argument for each tensor, and returns a tensor or a tuple of
    tensors. What it returns as it got it (a skip connection) goes on to the next stage.
    """

    def __init__(self, module: nn.Module, *, recompute: bool = False) -> None:
        self.module, self.recompute = module, recompute
        self.begin()

    def begin(self) -> None:
        """A step begins: drops what one that raised may have left."""
        self.flights: dict[int, Flight] = {}
        self.matrices = [each for each in self.module.modules() if has_matrices(each)]

    def averages(self, now: bool) -> None:
        """Tells a wrapper that averages gradients over data-parallel ranks whether the next pass is the last."""
        if expect := getattr(self.module, "expect_backward", None):
            expect(averages=now)

    @property
    def device(self) -> torch.device:
        """Where the stage computes: where its parameters are, or else this rank's device."""
        return next((p.device for p in self.module.parameters()), rank_device())

    def forward(
        self, mb: int, inputs: Sequence[Tensor], *, then: Callable[[Any], Tensor] | None = None, split: bool = False
    ) -> Tensors:
        """F of microbatch `mb`: the outputs, which remember whether they want a gradient. `then` adds the loss."""

        def run() -> Tensors:
            output = self.module(*flight.leaves)
            return self._tensors(then(output) if then else output)

        leaves = tuple(x.detach().requires_grad_(x.requires_grad) for x in inputs)
        flight = self.flights[mb] = Flight(leaves, run, split)
        if self.recompute:
            flight.dice = _dice(self.device)
            with torch.autograd.graph.saved_tensors_hooks(lambda _: None, _nothing):  # a graph without memory
                outputs = run()
        else:
            outputs = self._with_graph(flight)
        return tuple(y.detach().requires_grad_(y.requires_grad) for y in outputs)

    def backward(self, mb: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """B: adds the gradients of the weights to `.grad`, and returns those of the inputs that want one.

        `gradients` are those of the outputs that want one.
        """
        return self._backward(self.flights.pop(mb), gradients)

    def backward_input(self, mb: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """I: the gradients of the inputs."""
        flight = self.flights[mb]
        found = self._backward(flight, gradients)
        flight.leaves, flight.roots = (), []
        return found

    def backward_weight(self, mb: int) -> list[Tensor]:
        """W: adds the gradients of the weights to `.grad`. It makes nothing for anybody else."""
        backward_weights(self.flights.pop(mb).kept)
        return []

    def _with_graph(self, flight: Flight) -> Tensors:
        """Runs the forward, and keeps where the graph ends: not the outputs, which live as long as they travel."""
        with weights_later(self.matrices, flight.kept) if flight.split else nullcontext():
            outputs = flight.run()
        flight.roots = [get_gradient_edge(y) for y in outputs if y.requires_grad]
        return outputs

    def _backward(self, flight: Flight, gradients: Sequence[Tensor]) -> list[Tensor]:
        if self.recompute:
            with torch.random.fork_rng([self.device] if len(flight.dice) > 1 else []):
                _throw_again(flight.dice, self.device)
                self._with_graph(flight)
        flight.run = tuple  # it holds the leaves
        if flight.roots:
            torch.autograd.backward(flight.roots, gradients)
        wanted = [x for x in flight.leaves if x.requires_grad]
        return [torch.zeros_like(x) if x.grad is None else x.grad for x in wanted]

    def _tensors(self, output: Any) -> Tensors:
        outputs = as_tuple(output)
        if wrong := [type(y).__name__ for y in outputs if not isinstance(y, Tensor)]:
            name = type(self.module).__name__
            raise TypeError(f"{name} returned {wrong[0]}: a stage returns a tensor or a tuple of tensors")
        return outputs


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tensor as a tuple of one; tuples and lists as tuples."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _nothing(_: None) -> Tensor:
    raise AssertionError("the graph of this forward pass was only looked at")


def _dice(device: torch.device) -> list[Tensor]:
    """The states of the random generators that a forward pass on `device` draws from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _throw_again(dice: list[Tensor], device: torch.device) -> None:
    """Sets the generators back."""
    torch.set_rng_state(dice[0])
    for state in dice[1:]:
        torch.cuda.set_rng_state(state, device)
