"""Structured pruning: whole neurons, attention heads or channels go, and the matrices are really smaller.

Li et al. 2017, "Pruning filters for efficient ConvNets", section 3; Michel et al. 2019, "Are sixteen heads really
better than one?"; Ma et al. 2023, "LLM-Pruner", section 3.1 (what depends on each other goes together). Three ideas:

- A unit is written by some layers and read by others: a neuron is a row of one matrix and a column of the next. Both
  go, with the bias of the row. What is left is a dense model with fewer products, for any device and any library.
- A unit that is zero from its row on and in its column adds nothing. So the cut model computes just what the dense one
  does with these rows and columns masked (`mask_of` gives that mask).
- The score of a unit is the product of the norms of its slices on all sides. A ReLU's neuron can be scaled up on one
  side and down on the other without a change of the function, as queries and keys can; this product stays then too.

    stored        the smaller matrices, and nothing else
    sent per step 2 (n-1)/n times the bytes of the smaller gradients
    computed      as much less; between two pruned layers the product falls with the square of what is left

Each layer keeps the same share of its units. `model.config` still says what the model was built as.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from parallel_lab.compress.pruning import Masks
from parallel_lab.model import Attention, FeedForward

BETWEEN = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.Dropout, nn.Identity)  # number by number
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout2d)  # channel by channel
CONVS = (nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
PARAMETERS = ("weight", "bias")
SIZES = (
    ("out_features", "out_channels", "num_features"),
    ("in_features", "in_channels"),
)  # what a layer says of itself


@dataclass(frozen=True)
class Side:
    """Where units stand in a layer: along `dim` of its weight, `each` neighboring slices a unit."""

    name: str  # of the layer, in the model
    dim: int  # 0: the layer writes the units; 1: it reads them
    each: int = 1


@dataclass(frozen=True)
class Joint:
    """Units that several layers write and read: `units` of them, which stay or go on all sides at once."""

    name: str
    units: int
    sides: tuple[Side, ...]


M = TypeVar("M", bound=nn.Module)
Kept = list[tuple[Joint, Tensor]]  # of each joint the numbers of the units that stay, int64, in their order


def prune_neurons(model: M, sparsity: float) -> M:
    """A copy of `model` with the share `sparsity` of its hidden neurons gone, the least of each layer.

    Neurons are those between two linears of an `MLP` or another `nn.Sequential`, and of a GPT's feed-forward parts,
    gated ones and experts too.

    Raises:
        ValueError: the model has no hidden neurons, or `sparsity` is not in [0, 1).
    """
    return cut(model, choose(model, neurons(model), sparsity))


def prune_heads(model: M, sparsity: float) -> M:
    """A copy of a GPT with the share `sparsity` of the heads of each attention gone.

    Where query heads share a key-value head, they go together with it: what is left is grouped as before.

    Raises:
        ValueError: the model has no attention, or `sparsity` is not in [0, 1).
    """
    return cut(model, choose(model, heads(model), sparsity))


def prune_channels(model: M, sparsity: float) -> M:
    """A copy of `model` with the share `sparsity` of the channels between its convolutions gone.

    Channels are those that a convolution of an `nn.Sequential` writes and the next convolution, or the linear after an
    `nn.Flatten`, reads; batch norms between them lose theirs too.

    Raises:
        ValueError: the model has no such channels, or `sparsity` is not in [0, 1).
    """
    return cut(model, choose(model, channels(model), sparsity))


def choose(model: nn.Module, joints: Sequence[Joint], sparsity: float) -> Kept:
    """The units of each joint that stay, all but `round(sparsity * units)` and at least one, in their order.

    Raises:
        ValueError: there are no joints, or `sparsity` is not in [0, 1).
    """
    if not joints:
        raise ValueError(
            f"nothing to prune: {type(model).__name__} has no units that one layer writes and another reads"
        )
    if not 0 <= sparsity < 1:
        raise ValueError(f"a sparsity of {sparsity}: expected the share of units that go, at least 0 and less than 1")
    return [(joint, score(model, joint).topk(_left(joint, sparsity)).indices.sort().values) for joint in joints]


def score(model: nn.Module, joint: Joint) -> Tensor:
    """For each unit (units,) the product of the norms of its slices of the weights on all sides."""
    total = torch.ones(())
    for side in joint.sides:
        weight = model.get_parameter(f"{side.name}.weight").detach()
        total = total.to(weight) * weight.movedim(side.dim, 0).reshape(joint.units, -1).norm(dim=1)
    return total


def cut(model: M, kept: Kept) -> M:
    """A copy of `model` with the units in `kept` alone."""
    model = deepcopy(model)
    for joint, units in kept:
        for side in joint.sides:
            layer, places = model.get_submodule(side.name), _places(side, units)
            for name, held in _tensors(layer, side):
                less = held.detach().index_select(side.dim, places).clone()
                setattr(layer, name, nn.Parameter(less, held.requires_grad) if name in PARAMETERS else less)
            for size in SIZES[side.dim]:
                if hasattr(layer, size):
                    setattr(layer, size, len(places))
    return model


def mask_of(model: nn.Module, kept: Kept) -> Masks:
    """Masks that leave `model` its shapes and make it compute what `cut(model, kept)` does."""
    masks = Masks()
    for joint, units in kept:
        for side in joint.sides:
            for name, held in _tensors(model.get_submodule(side.name), side):
                if name in PARAMETERS:
                    stays = torch.zeros(held.shape[side.dim], dtype=torch.bool, device=held.device)
                    stays[_places(side, units)] = True
                    stays = stays.view([-1 if dim == side.dim else 1 for dim in range(held.dim())]).expand_as(held)
                    masks[f"{side.name}.{name}"] = masks.get(f"{side.name}.{name}", stays) & stays
    return masks


def _left(joint: Joint, sparsity: float) -> int:
    return max(1, joint.units - round(sparsity * joint.units))


def _places(side: Side, units: Tensor) -> Tensor:
    """The slices of `units` on a side."""
    return (units.unsqueeze(1) * side.each + torch.arange(side.each, device=units.device)).flatten()


def _tensors(layer: nn.Module, side: Side) -> list[tuple[str, Tensor]]:
    """What has slices of the units in a layer: its weight, and where it writes them its bias and running statistics."""
    names = ("weight", "bias", "running_mean", "running_var") if side.dim == 0 else ("weight",)
    return [(name, getattr(layer, name)) for name in names if getattr(layer, name, None) is not None]


def neurons(model: nn.Module) -> list[Joint]:
    """The hidden layers of `model`."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, FeedForward) and _plain(module.up, module.gate or module.up, module.down):
            writers = [part for part in ("up", "gate") if getattr(module, part) is not None]
            sides = [Side(_within(name, part), 0) for part in writers]
            found.append(Joint(name, module.up.out_features, (*sides, Side(_within(name, "down"), 1))))
        elif isinstance(module, nn.Sequential):
            found += _chained(name, module, nn.Linear, nn.Linear, BETWEEN)
    return found


def heads(model: nn.Module) -> list[Joint]:
    """The key-value heads of each attention, each with its query heads."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, Attention) and _plain(module.query, module.key, module.value, module.out):
            units, width = module.key.out_features // module.head_width, module.head_width
            queries = module.query.out_features // units
            sides = [Side(_within(name, "query"), 0, queries), Side(_within(name, "key"), 0, width)]
            sides += [Side(_within(name, "value"), 0, width), Side(_within(name, "out"), 1, queries)]
            found.append(Joint(name, units, tuple(sides)))
    return found


def channels(model: nn.Module) -> list[Joint]:
    """The channels between two convolutions, and those before the first linear."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            found += _chained(name, module, CONVS, (*CONVS, nn.Linear), (*BETWEEN, *POOLS, *NORMS, nn.Flatten))
    return found


def _chained(name: str, chain: nn.Sequential, writes: Any, reads: Any, between: Any) -> Iterator[Joint]:
    """The joints of a chain: from a layer of `writes` to the next of `reads`, with nothing but `between` on the way."""
    layers: list[tuple[str, Any]] = list(chain.named_children())
    ends = [place for place, (_, layer) in enumerate(layers) if not isinstance(layer, between)]
    for first, last in pairwise(ends):
        (of_writer, writer), (of_reader, reader) = layers[first], layers[last]
        if isinstance(writer, writes) and isinstance(reader, reads) and _whole(writer) and _whole(reader):
            sides = [Side(_within(name, of_writer), 0)]
            sides += [Side(_within(name, each), 0) for each, layer in layers[first:last] if isinstance(layer, NORMS)]
            (units, *_), (_, inputs, *_) = writer.weight.shape, reader.weight.shape
            yield Joint(sides[0].name, units, (*sides, Side(_within(name, of_reader), 1, inputs // units)))


def _plain(*layers: nn.Module) -> bool:
    """Whether these are linears, and not what low rank, adapters or codes have put in their places."""
    return all(isinstance(layer, nn.Linear) for layer in layers)


def _whole(layer: Any) -> bool:
    """Whether each output of a layer reads all inputs: a grouped convolution does not."""
    return getattr(layer, "groups", 1) == 1


def _within(name: str, part: str) -> str:
    return f"{name}.{part}".lstrip(".")
