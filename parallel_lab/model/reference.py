"""The oracle: one process, the global batches, nothing parallel. Every technique has to end where it ends.

The loss of a step is the mean over all targets of the *global* batch. A technique whose ranks hold uneven shares has to
weight each rank's mean by its share of the samples, or it computes something else. Compare in float64
(`build(config, dtype=torch.float64)`): a different order of sums then stays near 1e-15, and a mistake does not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn

from parallel_lab.model.config import GPTConfig
from parallel_lab.model.data import Batch
from parallel_lab.model.gpt import GPT
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.mlp import MLP

LossFn = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reference:
    """What training in one process came to."""

    losses: list[float]  # the mean loss of each step's global batch, before that step's update
    gradients: dict[str, Tensor]  # of the last step, by name as in `named_parameters()`; frozen parameters have none
    weights: dict[str, Tensor]  # after the last step, by name as in `state_dict()`


@overload
def build(config: GPTConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> GPT: ...
@overload
def build(config: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> MLP: ...
def build(config: GPTConfig | Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> GPT | MLP:
    """A `GPT` from its config, or an `MLP` from its widths; the same seed gives the same weights in every dtype.

    The weights are drawn in float32 and then converted. Torch's own random state is left as it was.
    """
    with _seeded(seed):
        model = GPT(config) if isinstance(config, GPTConfig) else MLP(config)
    return model.to(dtype)


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    loss: LossFn = cross_entropy,
    accumulate: int = 1,
    seed: int = 0,
    **optimizer_kwargs,
) -> Reference:
    """Trains a copy of `model`, one step a global batch (inputs, targets), and returns what came of it.

    `loss(outputs, targets)` is a mean over samples of equal weight. `accumulate` cuts each batch into that many
    microbatches, weighted by their samples; the step stays the same. `seed` is for dropout.

    Raises:
        ValueError: there are no batches, or a batch is smaller than `accumulate`.
    """
    model = deepcopy(model)
    optimizer = optimizer_class(model.parameters(), **optimizer_kwargs)
    losses: list[float] = []
    with _seeded(seed, model):
        for inputs, targets in batches:
            optimizer.zero_grad()
            losses.append(_backward(model, *to_model(model, (inputs, targets)), loss, accumulate))
            optimizer.step()
    if not losses:
        raise ValueError("no batches to train on")
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return Reference(losses, gradients, {name: t.clone() for name, t in model.state_dict().items()})


@contextmanager
def _seeded(seed: int, model: nn.Module | None = None) -> Iterator[None]:
    """Draws from `seed` inside, and leaves the random state of the CPU and of the model's GPU as it was."""
    devices = {p.device.index for p in model.parameters() if p.is_cuda} if model else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def to_model(model: nn.Module, batch: Batch) -> Batch:
    """The batch on the model's device; floating-point inputs in its dtype."""
    like, (inputs, targets) = next(model.parameters()), batch
    dtype = like.dtype if inputs.is_floating_point() else inputs.dtype
    return inputs.to(like.device, dtype), targets.to(like.device)


def _backward(model: nn.Module, inputs: Tensor, targets: Tensor, loss: LossFn, accumulate: int) -> float:
    """Adds the gradients of the mean loss over the batch, a microbatch at a time, and returns that loss."""
    if not 1 <= accumulate <= len(inputs):
        raise ValueError(f"a batch of {len(inputs)} does not cut into {accumulate} microbatches")
    total = 0.0
    for x, y in zip(inputs.tensor_split(accumulate), targets.tensor_split(accumulate), strict=True):
        part = loss(model(x), y) * (len(x) / len(inputs))
        part.backward()
        total += part.item()
    return total
