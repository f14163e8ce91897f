"""A gradient leaks the batch that it was computed on; what an aggregate still leaks.

Who sees a rank's gradient, as a server or a neighbor in a ring does, may compute the images.

- *By division* (Phong et al. 2017). A linear layer y = x w + bias, with w as PyTorch's weight transposed, has the
  gradients g_w = sum of x_i^T g_i and g_bias = sum of g_i, over the samples i, with g_i the gradient of their output.
  Where one sample alone reaches output j, column j of g_w (row j of PyTorch's) over element j of g_bias is its input,
  exactly. With one sample that is every row that is not zero. With many, a ReLU leaves some rows to one sample only.
- *By the signs of the last bias* (Zhao et al. 2020, iDLG). Of one sample under cross-entropy, g_bias = softmax -
  one-hot is negative at the label only.
- *By search* (Zhu et al. 2019, DLG). Look for an image whose gradient is the one that was seen. It needs no such layer,
  and a gradient that is differentiable in the image.

Defenses: the sum of many ranks, added under masks (`secure_sum`), so that nobody sees one rank's gradient; clipping
and noise (`private`). A sum alone hides little while some row belongs to one sample: of the sum too, division gives
that sample. A server that chooses the model can even see to it that rows belong to single samples (Fowl et al. 2022).
Noise bounds what is learned from any number of looks, and costs accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.model.reference import build

Gradients = list[Tensor]  # of each parameter, in the model's order


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Gradients:
    """What a rank would send: the gradients of the mean loss over its batch."""
    return list(torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters())))


def by_division(weight: Tensor, bias: Tensor, least: float = 1e-9) -> Tensor:
    """Candidates for inputs of a linear layer: row i of its weight's gradient over element i of its bias's gradient.

    Rows whose bias gradient is not above `least` times the largest say nothing, and are left out.
    """
    tells = bias.abs() > least * bias.abs().max().clamp(min=torch.finfo(bias.dtype).tiny)
    return weight[tells] / bias[tells, None]


def label_of(last_bias: Tensor) -> int:
    """The label of the one sample under cross-entropy: the only negative element of the last bias's gradient."""
    return int(last_bias.argmin())


def smooth(widths: Sequence[int] = (64, 32, 10), seed: int = 0) -> nn.Sequential:
    """An MLP in float64 with sigmoids in place of ReLUs, whose gradients can be differentiated in the image."""
    layers = [nn.Sigmoid() if isinstance(each, nn.ReLU) else each for each in build(widths, seed, torch.float64)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        images: (batch, pixels).
        labels: the likeliest class of each.
        misses: how far the gradients were from those seen, squared, before each round.
    """

    images: Tensor
    labels: Tensor
    misses: list[float]


def by_search(model: nn.Module, seen: Gradients, batch: int = 1, *, rounds: int = 60, seed: int = 0) -> Found:
    """Looks for images and labels whose gradients are `seen`, by L-BFGS from noise; both are free, as in DLG.

    Args:
        model: as the victim's, with a gradient that is differentiable in its input.
        seen: the gradients.
        batch: how many samples the victim had.
        rounds: of L-BFGS, 20 iterations each at most.
        seed: of the noise.
    """
    dice = torch.Generator().manual_seed(seed)
    pixels, classes = next(model.parameters()).shape[1], len(seen[-1])
    images = torch.rand(batch, pixels, generator=dice, dtype=seen[0].dtype).requires_grad_()
    logits = torch.randn(batch, classes, generator=dice, dtype=seen[0].dtype).requires_grad_()
    search = torch.optim.LBFGS([images, logits], line_search_fn="strong_wolfe")
    misses: list[float] = []

    def miss() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(model(images), logits.softmax(1))
        made = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        total = torch.stack([((a - b) ** 2).sum() for a, b in zip(made, seen, strict=True)]).sum()
        images.grad, logits.grad = torch.autograd.grad(total, [images, logits])
        return total.detach()

    for _ in range(rounds):
        misses.append(float(search.step(miss)))
    return Found(images.detach(), logits.argmax(1), misses)


@dataclass(frozen=True)
class Leak:
    """How much of a batch some candidates show.

    Attributes:
        error: of each sample of the batch, the mean squared error of the nearest candidate.
        exact: how many samples have a candidate that is the same to `1e-6`.
        named: how many samples have a candidate to which no image of the collection is nearer.
    """

    error: Tensor
    exact: int
    named: int


def leak(candidates: Tensor, batch: Tensor, collection: Tensor) -> Leak:
    """Compares candidates with the batch that they may show; `collection` holds it and images of the same kind."""
    candidates, collection = candidates.to(batch.dtype), collection.to(batch.dtype)
    if not len(candidates):
        return Leak(torch.full((len(batch),), torch.inf), 0, 0)
    error = (torch.cdist(batch, candidates) ** 2 / batch.shape[1]).amin(1)
    shown = collection[torch.cdist(candidates, collection).argmin(1)]
    named = int((batch[:, None] == shown).all(2).any(1).sum())
    return Leak(error, int((error < 1e-6).sum()), named)
