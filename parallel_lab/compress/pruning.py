"""Unstructured pruning: single weights become zero, and a mask remembers which.

Han et al. 2015, "Learning both weights and connections", section 3 (magnitude); Lee et al. 2019, "SNIP: single-shot
network pruning based on connection sensitivity" (saliency |w g|); Sanh et al. 2020, "Movement pruning" (-sum w g);
Mishra et al. 2021, "Accelerating sparse deep neural networks" (2:4). Three ideas:

- Each weight has a score, and those with the least scores go. The threshold is one for each layer, `scope="layer"`, or
  one for the whole model, `scope="global"`: then a layer of small weights loses more than its share.
- Sparsity counts the weights that were up for pruning: those of linears and convolutions. Biases, norms and embeddings
  stay, and are not counted.
- A mask is no property of a weight. The next step of the optimizer moves a zero away from zero (momentum and weight
  decay too), so the mask is applied again after each step: `Masks.hold`.

    stored        the matrix keeps its shape; to be smaller it must be written as values and places, or as N:M
    sent per step as dense, 2 (n-1)/n times the bytes of all gradients: zeros travel as any other number
    computed      as dense, but for N:M on a unit that has it (2:4 on NVIDIA GPUs since Ampere)
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from parallel_lab.model import loss as cross_entropy
from parallel_lab.model.data import Batch
from parallel_lab.model.reference import LossFn, to_model

Scope = Literal["layer", "global"]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights of linears and convolutions by name; one that an embedding shares is left out."""
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    named = {f"{name}.weight".lstrip("."): m.weight for name, m in model.named_modules() if isinstance(m, LAYERS)}
    return {name: weight for name, weight in named.items() if id(weight) not in embedded}


class Held:
    """Masks that stay on a model while an optimizer steps; `remove` lets them go."""

    def __init__(self, *hooks: torch.utils.hooks.RemovableHandle) -> None:
        self.hooks = hooks

    def remove(self) -> None:
        """The next step moves masked weights again."""
        for hook in self.hooks:
            hook.remove()


class Masks(dict[str, Tensor]):
    """For each pruned parameter by name a bool tensor of its shape, True where the weight stays."""

    @property
    def sparsity(self) -> float:
        """The share of zeros among the weights of matrices that have a mask; biases do not count."""
        matrices = [mask for mask in self.values() if mask.dim() > 1]
        return sum(int((~mask).sum()) for mask in matrices) / max(sum(mask.numel() for mask in matrices), 1)

    def apply(self, model: nn.Module) -> None:
        """Sets the masked weights of `model` to zero, in place.

        Raises:
            ValueError: the model has no such parameter, or it has another shape. Nothing is changed then.
        """
        with torch.no_grad():
            for weight, mask in self._pairs(model):
                weight.masked_fill_(~mask.to(weight.device), 0)

    def hold(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Held:
        """Applies the masks now and after each step of `optimizer`; before it, masked gradients become zero.

        So masked gradients do not enter the optimizer's momentum.

        Raises:
            ValueError: as `apply`.
        """
        self.apply(model)

        def before(*_: object) -> None:
            for weight, mask in self._pairs(model):
                if weight.grad is not None:
                    weight.grad.masked_fill_(~mask.to(weight.device), 0)

        return Held(
            optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(lambda *_: self.apply(model))
        )

    def _pairs(self, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        named = dict(model.named_parameters(remove_duplicate=False))
        for name, mask in self.items():
            if name not in named or named[name].shape != mask.shape:
                has = f"has {tuple(named[name].shape)} there" if name in named else "has no such parameter"
                raise ValueError(
                    f"the mask of {name} is {tuple(mask.shape)}, and the model {has}: is it wrapped, or another?"
                )
        return [(named[name], mask) for name, mask in self.items()]


def by_score(scores: Mapping[str, Tensor], sparsity: float, scope: Scope = "layer") -> Masks:
    """Masks without the `round(sparsity * elements)` least scores of each tensor, or of all of them together.

    Raises:
        ValueError: `sparsity` is not in [0, 1), `scope` is unknown, or there is nothing to prune.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"a sparsity of {sparsity}: expected the share of weights that go, at least 0 and less than 1")
    if scope not in ("layer", "global"):
        raise ValueError(f"scope is {scope!r}: expected layer or global")
    if not scores:
        raise ValueError("nothing to prune: the model has no weight of a linear or a convolution")
    if scope == "layer":
        return Masks({name: largest(score, sparsity) for name, score in scores.items()})
    kept = largest(torch.cat([score.flatten() for score in scores.values()]), sparsity)
    parts = kept.split([score.numel() for score in scores.values()])
    return Masks({name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)})


def largest(score: Tensor, sparsity: float) -> Tensor:
    """True at all but the `round(sparsity * elements)` least elements of `score`, in its shape."""
    flat = score.flatten()
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[flat.topk(round(sparsity * flat.numel()), largest=False).indices] = False
    return kept.view_as(score)


def magnitude(model: nn.Module, sparsity: float, *, scope: Scope = "layer") -> Masks:
    """Masks without the smallest weights |w|; the model stays as it is.

    Raises:
        ValueError: as `by_score`.
    """
    return by_score({name: weight.detach().abs() for name, weight in prunable(model).items()}, sparsity, scope)


def saliency(
    model: nn.Module, sparsity: float, batches: Iterable[Batch], *, loss: LossFn = cross_entropy, scope: Scope = "layer"
) -> Masks:
    """Masks without the weights whose absence the training loss would notice least, to first order: |w g|.

    g is the gradient summed over `batches`. The model stays as it is, `.grad` too. Ranks that have a share of the
    batches each would get masks of their own: give all of them the same batches.

    Raises:
        ValueError: as `by_score`.
    """
    weights = prunable(model)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in batches:
        inputs, targets = to_model(model, batch)
        of_batch = loss(model(inputs), targets)
        found = torch.autograd.grad(of_batch, list(weights.values()), allow_unused=True, materialize_grads=True)
        for total, gradient in zip(sums.values(), found, strict=True):
            total += gradient
    return by_score({name: (w.detach() * sums[name]).abs() for name, w in weights.items()}, sparsity, scope)


def movement(
    model: nn.Module,
    sparsity: float,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    loss: LossFn = cross_entropy,
    scope: Scope = "layer",
) -> Masks:
    """Trains `model`, a step a batch; masks without the weights that went towards zero most.

    The score is -sum over steps of w g, before each step: positive where the gradient drives the weight away from zero.
    A small weight that grows is kept, and a large one that shrinks goes.

    Raises:
        ValueError: as `by_score`.
    """
    weights = prunable(model)
    scores = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in batches:
        inputs, targets = to_model(model, batch)
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        for score, weight in zip(scores.values(), weights.values(), strict=True):
            if weight.grad is not None:
                score -= weight.detach() * weight.grad
        optimizer.step()
    return by_score(scores, sparsity, scope)


def n_m(weight: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """A mask that keeps the `n` largest |w| of each `m` neighbors in a row of `weight` (rows, columns).

    Stored, n values stay of m, and each needs its place: 2 bits in 2:4.

    Raises:
        ValueError: columns do not divide into groups of `m`, or `n` is not between 1 and `m`.
    """
    if not 1 <= n <= m or weight.dim() != 2 or weight.shape[1] % m:
        raise ValueError(f"{n} of {m} in a weight of {tuple(weight.shape)}: expected rows of whole groups of {m}")
    groups = weight.detach().abs().unflatten(1, (-1, m))  # (rows, columns / m, m)
    kept = torch.zeros_like(groups, dtype=torch.bool)
    return kept.scatter_(2, groups.topk(n, dim=2).indices, True).flatten(1)
