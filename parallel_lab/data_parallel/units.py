"""Which parameters Zero3 communicates together, and how each is cut: the units of a model.

A unit is a module whose parameters are unsharded and resharded as one. The smaller the units, the less is held at once;
the larger, the fewer and better filled the messages. Repeated layers are the natural cut: by default every child of an
`nn.ModuleList` or `nn.Sequential` is a unit. What no unit has (in a GPT, the embeddings and the head) is the root's, as
is a parameter that two units share, since it is needed as long as either is.

A parameter of `rows` rows is cut along its first dimension as `torch.chunk` does: each of n ranks has ceil(rows / n)
rows, the last ranks fewer or none. On the wire every piece has that size, so only the end is padded.
"""

from collections.abc import Iterable, Iterator
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Home(NamedTuple):
    """A place in the model where a parameter stands: `module`'s `attribute`."""

    module: nn.Module
    attribute: str


class Slot(NamedTuple):
    """One parameter of a unit, and how it is cut."""

    name: str  # its first in the model
    homes: tuple[Home, ...]  # all its places (several where it is tied)
    shape: torch.Size  # of the whole parameter
    rows: int  # how many a rank has, unless they run out
    chunk: int  # how many elements the message has for it, padding included

    def shard(self, whole: Tensor, rank: int) -> Tensor:
        """The rows of `whole` that `rank` has; a view."""
        whole = whole.view(whole.shape or (1,))  # a number is one row
        return whole[rank * self.rows : (rank + 1) * self.rows]

    def shape_of_shard(self, rank: int) -> tuple[int, ...]:
        """The shape of the rows that `rank` has."""
        rows, *rest = self.shape or (1,)
        return (len(range(rows)[rank * self.rows : (rank + 1) * self.rows]), *rest)

    def first(self, rank: int) -> int:
        """Which element of the flattened parameter the shard of `rank` begins with."""
        return min(rank * self.chunk, prod(self.shape))


class Cut(NamedTuple):
    """A unit to be: its module and its parameters, which have one dtype."""

    name: str
    module: nn.Module
    dtype: torch.dtype
    slots: tuple[Slot, ...]


def padded(shapes: Iterable[Iterable[int]], n: int) -> int:
    """The elements that n ranks send together for parameters of these shapes: n pieces of ceil(rows / n) rows each."""
    return sum(n * -(-rows // n) * prod(rest) for rows, *rest in (tuple(shape) or (1,) for shape in shapes))


def cut(model: nn.Module, n: int, units: Iterable[nn.Module] | None = None) -> list[Cut]:
    """The units of `model` for n ranks, in order of registration, the root last; `units` in place of the default.

    A parameter belongs to the innermost unit that it lies in. Units without parameters are left out. A module with
    parameters of several dtypes makes a unit for each.

    Raises:
        ValueError: a unit is not a module inside `model`.
    """
    names = {module: name for name, module in model.named_modules()}
    chosen = _default(model) if units is None else list(units)
    for module in chosen:
        if module not in names or module is model:
            raise ValueError(f"the unit {type(module).__name__} is not a module inside the model")
    owners: dict[nn.Module, nn.Module] = {}
    for module in names:  # a parent comes before its children, so the innermost unit has the last word
        if module in chosen:
            owners |= dict.fromkeys(module.modules(), module)
    order = [module for module in names if module in chosen] + [model]
    found: dict[tuple, list[Slot]] = {}
    for slot, dtype in _slots(model, n):
        inside = {owners.get(home.module, model) for home in slot.homes}
        module = inside.pop() if len(inside) == 1 else model
        found.setdefault((order.index(module), dtype), []).append(slot)
    ordered = sorted(found.items(), key=lambda item: (item[0][0], str(item[0][1])))
    return [Cut(names[order[k]] or "root", order[k], dtype, tuple(slots)) for (k, dtype), slots in ordered]


def _default(model: nn.Module) -> list[nn.Module]:
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    return [child for each in lists for child in each]


def _slots(model: nn.Module, n: int) -> Iterator[tuple[Slot, torch.dtype]]:
    homes: dict[nn.Parameter, list[Home]] = {}
    for module in model.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                homes.setdefault(parameter, []).append(Home(module, attribute))
    for name, parameter in model.named_parameters():
        if parameter.numel():  # one without elements stays as it is
            shape, rows = parameter.shape, -(-(parameter.shape or (1,))[0] // n)
            yield Slot(name, tuple(homes[parameter]), shape, rows, padded([shape], n) // n), parameter.dtype
