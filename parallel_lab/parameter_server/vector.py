"""A model's trainable parameters as one flat vector, in the model's order; tied ones once, frozen ones not at all."""

from collections.abc import Sequence

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
def house_gradients(model: nn.Module, home: Tensor) -> None:
    """Makes each `.grad` a view of `home`, (elements,), as far as the model is on the CPU: backward then fills it."""
    for parameter, piece in _pieces(model, home):
        piece.zero_() if parameter.grad is None else piece.copy_(parameter.grad)
        if parameter.device.type == "cpu":
            parameter.grad = piece


@torch.no_grad()
def copy_gradients(model: nn.Module, home: Tensor) -> None:
    """Copies the gradients to `home`, (elements,), unless they are there; an unused parameter counts as zeros."""
    for parameter, piece in _pieces(model, home):
        if parameter.grad is None:
            piece.zero_()
        elif parameter.grad.data_ptr() != piece.data_ptr() or parameter.grad.stride() != piece.stride():
            piece.copy_(parameter.grad)


def _pieces(model: nn.Module, vector: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """Each parameter with its stretch of `vector`, in its shape."""
    found = list(trainable(model).values())
    cut = vector.split([p.numel() for p in found])
    return [(parameter, piece.view(parameter.shape)) for parameter, piece in zip(found, cut, strict=True)]


@torch.no_grad()
def house_parameters(model: nn.Module, layout: Layout, shards: Sequence[Tensor]) -> list[list[tuple[Tensor, Tensor]]]:
    """Makes each parameter a view of the shard's vector in which it lies, (elements of the shard,).

    What cannot be one is to be copied after each pull: a parameter that is cut, or not on the CPU. Returns for each
    shard where such pieces go, and where they come from.
    """
    parameters, left = list(trainable(model).values()), [[] for _ in shards]
    for shard, vector in enumerate(shards):
        start = 0
        for index, piece in layout.pieces(shard):
            parameter, source = parameters[index], vector[start : start + piece.stop - piece.start]
            start += len(source)
            if len(source) == parameter.numel() and parameter.device.type == "cpu":
                parameter.data = source.view(parameter.shape).copy_(parameter)
            else:
                parameter.data = parameter.contiguous()
                left[shard].append((parameter.detach().view(-1)[piece], source))
    return left


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
