"""A model's trainable parameters as one flat vector, in the model's order; tied ones once, frozen ones not at all."""

import torch
from torch import Tensor, nn

from parallel_lab.parameter_server.sharding import Layout


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name.

    ValueError if there is none. TypeError if they are of several dtypes, since a shard is one vector.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("the model has no trainable parameter: nothing to serve")
    if len(dtypes := {str(p.dtype) for p in found.values()}) > 1:
        raise TypeError(f"parameters of {' and '.join(sorted(dtypes))}: a parameter server keeps one dtype")
    return found


def layout_of(model: nn.Module, servers: int) -> Layout:
    """How the model's vector is cut among `servers`; errors as `trainable` raises them."""
    found = trainable(model)
    shapes = tuple(tuple(p.shape) for p in found.values())
    return Layout(tuple(found), shapes, str(next(iter(found.values())).dtype), servers)


@torch.no_grad()
def parameters_of(model: nn.Module) -> Tensor:
    """A copy of the parameters, (elements,), on the CPU."""
    return torch.cat([p.detach().reshape(-1) for p in trainable(model).values()]).cpu().clone()


@torch.no_grad()
def copy_gradients(model: nn.Module, out: Tensor) -> None:
    """Copies the gradients to `out`, (elements,), on the CPU; a parameter that was not used counts as zeros."""
    found = list(trainable(model).values())
    for parameter, piece in zip(found, out.split([p.numel() for p in found]), strict=True):
        if parameter.grad is None:
            piece.zero_()
        else:
            piece.view(parameter.shape).copy_(parameter.grad)


@torch.no_grad()
def write(model: nn.Module, vector: Tensor) -> None:
    """Copies `vector`, (elements,), into the parameters."""
    found = list(trainable(model).values())
    for parameter, piece in zip(found, vector.split([p.numel() for p in found]), strict=True):
        parameter.copy_(piece.view(parameter.shape))


def named_pieces(layout: Layout, shard: int, vector: Tensor) -> dict[str, Tensor]:
    """The vector of server `shard`, by name: a whole parameter in its shape, a piece as `name[start:stop]`, flat."""
    found, start = {}, 0
    for index, piece in layout.pieces(shard):
        values = vector[start : start + piece.stop - piece.start].clone()
        start += len(values)
        whole = len(values) == layout.sizes[index]
        name = layout.names[index] if whole else f"{layout.names[index]}[{piece.start}:{piece.stop}]"
        found[name] = values.view(layout.shapes[index]) if whole else values
    return found
