"""Pruning in rounds: prune a little, train what is left, prune again; and rewinding.

Han et al. 2015, "Learning both weights and connections", section 3.4; Frankle and Carbin 2019, "The lottery ticket
hypothesis"; Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis" (rewinding); Zhu and
Gupta 2017, "To prune, or not to prune", section 3 (cubic). Three ideas:

- Weights that are cut at once leave an error that the others had no chance to make up for. In rounds they have it.
- Each round removes the same share of what is left: after a round 1 - (1 - goal)^(round/rounds), the goal at the end.
- Rewinding sets the weights that stay back to what they were early in training, and trains again. If that ends where
  the dense model ends, the mask alone has found a network that could have been trained from there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from parallel_lab.compress.pruning import Masks, magnitude
from parallel_lab.model import loss as cross_entropy
from parallel_lab.model.data import Batch
from parallel_lab.model.reference import LossFn, to_model


def geometric(sparsity: float, rounds: int) -> list[float]:
    """The sparsity after each round where each removes the same share of what is left."""
    return [1 - (1 - sparsity) ** (number / rounds) for number in range(1, rounds + 1)]


def cubic(sparsity: float, rounds: int) -> list[float]:
    """The sparsity after each round by goal (1 - (1 - round/rounds)^3): much at first, little at the end."""
    return [sparsity * (1 - (1 - number / rounds) ** 3) for number in range(1, rounds + 1)]


def iterative(
    model: nn.Module,
    schedule: Sequence[float],
    tune: Callable[[nn.Module, Masks], Any],
    *,
    score: Callable[[nn.Module, float], Masks] = magnitude,
    rewind: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Prunes `model` in place to each sparsity of `schedule`, with training after each; the masks of the last round.

    Args:
        model: what is pruned.
        schedule: rising sparsities, as `geometric(0.9, 5)`.
        tune: trains the model with masks held, as `fine_tune` does.
        score: gives masks of a sparsity, `magnitude` layer by layer by default.
        rewind: a `state_dict` that the weights go back to before each training, clones of an early step.

    Raises:
        ValueError: `schedule` is empty or falls.
    """
    if not schedule or list(schedule) != sorted(schedule):
        raise ValueError(f"a schedule of {list(schedule)}: expected sparsities that rise, and at least one")
    masks = Masks()
    for sparsity in schedule:
        masks = score(model, sparsity)  # what is zero has the least score, so that it stays zero
        if rewind is not None:
            model.load_state_dict(rewind)
        masks.apply(model)
        tune(model, masks)
    return masks


def fine_tune(
    model: nn.Module,
    masks: Masks,
    batches: Iterable[Batch],
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    loss: LossFn = cross_entropy,
    **optimizer_kwargs: Any,
) -> list[float]:
    """Trains `model` in place, a step a batch, with `masks` held; the loss before each step.

    Without masks, `Masks()`, it just trains.
    """
    optimizer = optimizer_class(model.parameters(), **optimizer_kwargs)
    held, losses = masks.hold(model, optimizer), []
    for batch in batches:
        inputs, targets = to_model(model, batch)
        optimizer.zero_grad()
        of_batch = loss(model(inputs), targets)
        of_batch.backward()
        optimizer.step()
        losses.append(of_batch.item())
    held.remove()
    return losses
