"""The gradients of several batches at once, each a flat row, and a step by such a row."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The flat gradient of each batch's mean loss: (n, numbers) of images (n, batch, pixels), labels (n, batch)."""
    weights = {name: each.detach() for name, each in model.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (x,)), y)

    found = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
    return torch.cat([each.flatten(1) for each in found.values()], dim=1)


def descend(model: nn.Module, gradient: Tensor, lr: float) -> None:
    """One step of SGD by a flat gradient."""
    with torch.no_grad():
        vector_to_parameters(parameters_to_vector(model.parameters()) - lr * gradient, model.parameters())
