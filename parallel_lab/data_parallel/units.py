"""Which parameters Zero3 gathers together: the units of a model.

A unit is a module whose parameters come and go as one. The smaller the units, the less is gathered at once; the
larger, the fewer and better filled the messages. Repeated layers are the natural cut: by default every child of an
`nn.ModuleList` or `nn.Sequential` is a unit, and what no unit has (in a GPT, the embeddings and the head) is the
root's, as is a parameter that two units share, since it is needed as long as either is.
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn


class Home(NamedTuple):
    """A place in the model where a parameter stands: `module`'s `attribute`."""

    module: nn.Module
    attribute: str


class Member(NamedTuple):
    """A parameter of a unit: its first name, itself, and all its places (several where it is tied)."""

    name: str
    parameter: nn.Parameter
    homes: tuple[Home, ...]


class Cut(NamedTuple):
    """A unit to be: its module and its parameters."""

    name: str
    module: nn.Module
    members: tuple[Member, ...]


def cut(model: nn.Module, units: Iterable[nn.Module] | None = None) -> list[Cut]:
    """The units of `model` in order of registration, the root last; units without parameters are left out.

    `units`: the modules that are to be units, in place of the default. A parameter belongs to the innermost unit that
    it lies in. ValueError for a unit that is not a module inside `model`.
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
    grouped: dict[nn.Module, list[Member]] = {module: [] for module in names if module in chosen} | {model: []}
    for member in _members(model):
        inside = {owners.get(home.module, model) for home in member.homes}
        grouped[inside.pop() if len(inside) == 1 else model].append(member)
    return [Cut(names[module] or "root", module, tuple(found)) for module, found in grouped.items() if found]


def _default(model: nn.Module) -> list[nn.Module]:
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    return [child for each in lists for child in each]


def _members(model: nn.Module) -> list[Member]:
    places: dict[nn.Parameter, list[Home]] = {}
    for module in model.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(parameter, []).append(Home(module, attribute))
    return [Member(name, p, tuple(places[p])) for name, p in model.named_parameters()]
